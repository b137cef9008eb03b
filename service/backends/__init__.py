"""Executes runs: one implementation for each place where they can be, behind one seam."""
