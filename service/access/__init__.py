"""Authentication and authorization: authenticators, tokens, certificates, permissions."""
