"""Administers tenants and what belongs to them: limits, members, tokens, grants, reservations. Knows neither gRPC nor runs."""
