"""Accepts, shows, cancels and retries jobs and batches, as users handle them. Knows no gRPC."""
