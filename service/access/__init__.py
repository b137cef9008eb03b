"""Finds out who calls, and whether they may: authenticators, tokens, certificates, permissions."""
