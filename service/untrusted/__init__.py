"""Parses what tenants wrote in a process of its own that may die of it."""
