"""Lists jobs and batches: filters, orders and pages."""
