"""What is stored, and how it is read and written. Decides nothing."""
