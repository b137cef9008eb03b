"""One seam for each place where a run can execute."""
