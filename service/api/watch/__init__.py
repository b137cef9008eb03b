"""Serves watches: a snapshot, then every change in commit order, read once for all watchers."""
