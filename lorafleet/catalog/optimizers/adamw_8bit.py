"""AdamW with 8-bit state (Dettmers et al. 2022)."""

from lorafleet.catalog.optimizer import Optimizer, eight_bit

FACTS = Optimizer(
    name="adamw_8bit",
    title="AdamW with 8-bit state (Dettmers et al. 2022)",
    state_bytes=eight_bit(2),
    is_elementwise=False,
)
