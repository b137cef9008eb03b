"""Puts the parts of `lorafleet serve` together, and takes them apart again at its end."""
