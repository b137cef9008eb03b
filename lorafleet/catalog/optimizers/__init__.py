"""An optimizer's facts in each file."""
