"""An extension of lorafleet, as another package may be one: a model family, an adapter method, an optimizer, an objective and a loss."""
