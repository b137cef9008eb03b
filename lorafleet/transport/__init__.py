"""Connects clients and servers of lorafleet: channels, retries, streams, errors on the wire."""
