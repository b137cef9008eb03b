"""The asynchronous client, and the only one that is written by hand: scripts/make_sync_client.py makes lorafleet.sync of it."""
