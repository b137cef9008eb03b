"""A precision's facts in each file."""
