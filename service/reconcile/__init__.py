"""Acts, in loops: load and take, act outside the transaction, apply if still held."""
