"""Gives any room what it may use: time, wake-ups, names of resources, numbers and spans. Knows no job and no table."""
