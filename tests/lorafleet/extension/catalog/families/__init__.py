"""Its model families."""
