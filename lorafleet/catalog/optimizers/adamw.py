"""AdamW (Loshchilov and Hutter 2019)."""

from lorafleet.catalog.optimizer import Optimizer, copies

FACTS = Optimizer(
    name="adamw",
    title="AdamW (Loshchilov and Hutter 2019)",
    state_bytes=copies(2),  # the means of the gradient and of its square
    is_elementwise=True,
)
