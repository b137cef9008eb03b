"""Jobs and batches as users handle them: accepted, shown, cancelled, tried again. Knows no gRPC."""
