"""Decides, in pure functions from values to values, tested with no server."""
