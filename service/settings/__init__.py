"""Turns the options of `lorafleet serve` into settings. Starts nothing."""
