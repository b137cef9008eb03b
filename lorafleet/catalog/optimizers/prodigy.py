"""Prodigy (Mishchenko and Defazio 2024)."""

from lorafleet.catalog.optimizer import Optimizer, copies

FACTS = Optimizer(
    name="prodigy",
    title="Prodigy (Mishchenko and Defazio 2024)",
    state_bytes=copies(4),
    is_elementwise=False,
    has_one_rate=True,  # what it finds out is how far all tensors together are from their optimum
    usual_rate=1.0,
)
