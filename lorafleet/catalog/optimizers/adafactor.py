"""Adafactor (Shazeer and Stern 2018)."""

from lorafleet.catalog.optimizer import Optimizer, factored_bytes

FACTS = Optimizer(
    name="adafactor",
    title="Adafactor (Shazeer and Stern 2018)",
    state_bytes=factored_bytes,
    is_elementwise=False,
    is_adam=False,
)
