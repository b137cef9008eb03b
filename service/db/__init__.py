"""Stores what there is, and reads and writes it. Decides nothing."""
