"""Who calls, and how that is known: authenticators, tokens, certificates."""
