"""The loops that act: load and take, act outside the transaction, apply if still held."""
