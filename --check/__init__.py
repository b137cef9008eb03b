"""Made by scripts/make_sync_client.py from lorafleet/aio/: change that one, then run `make sync-client`."""
