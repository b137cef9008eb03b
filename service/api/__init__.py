"""Serves gRPC: servicers, what lies around their calls, watches and lists. Knows nothing of how runs are launched."""
