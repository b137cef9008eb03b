"""schedule-free AdamW (Defazio et al. 2024)."""

from lorafleet.catalog.optimizer import Optimizer, copies

FACTS = Optimizer(
    name="adamw_schedule_free",
    title="schedule-free AdamW (Defazio et al. 2024)",
    state_bytes=copies(2),
    is_elementwise=False,
    averages=True,
)
