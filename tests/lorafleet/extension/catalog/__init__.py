"""Its entries."""
