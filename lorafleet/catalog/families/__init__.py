"""A model family's facts in each file."""
