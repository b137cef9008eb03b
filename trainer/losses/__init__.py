"""Losses by the name that a spec gives them. Each is imported on demand."""

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from trainer.losses.protocol import Loss

LOSSES: Registry[Loss] = Registry("loss", "trainer.losses", "LOSS", extension="losses", facts=catalog.LOSSES)
