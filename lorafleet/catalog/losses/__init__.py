"""A loss's facts in each file."""
