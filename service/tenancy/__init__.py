"""What tenants have: limits, members, tokens, grants, reservations. Knows neither gRPC nor runs."""
