"""The asynchronous client, the only one written by hand: scripts/make_sync_client.py generates lorafleet.sync from it."""
