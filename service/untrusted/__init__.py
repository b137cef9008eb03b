"""What tenants wrote is parsed here, in a process of its own that may die of it."""
