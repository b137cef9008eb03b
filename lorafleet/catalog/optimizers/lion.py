"""Lion (Chen et al. 2023)."""

from lorafleet.catalog.optimizer import Optimizer, copies

FACTS = Optimizer(
    name="lion",
    title="Lion (Chen et al. 2023)",
    state_bytes=copies(1),
    is_elementwise=True,
    is_adam=False,
)
