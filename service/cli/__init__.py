"""Holds the server's commands: `lorafleet serve`, `db` and `health`."""
