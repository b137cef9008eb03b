"""Its optimizers."""
