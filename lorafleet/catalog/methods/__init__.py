"""An adapter method's facts in each file."""
