"""Lion with 8-bit state (Chen et al. 2023; Dettmers et al. 2022)."""

from lorafleet.catalog.optimizer import Optimizer, eight_bit

FACTS = Optimizer(
    name="lion_8bit",
    title="Lion with 8-bit state (Chen et al. 2023; Dettmers et al. 2022)",
    state_bytes=eight_bit(1),
    is_elementwise=False,
    is_adam=False,
)
