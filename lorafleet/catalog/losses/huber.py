"""The pseudo-Huber loss (Khrapov et al. 2024)."""

from lorafleet.catalog.loss import Loss

FACTS = Loss(name="huber", title="pseudo-Huber loss (Khrapov et al. 2024)", has_scale=True)
