"""Optimizers by the name that a spec gives them. Each is imported on demand."""

from lorafleet import catalog
from lorafleet.catalog.registry import Registry
from trainer.optimizers.protocol import RowOptimizer

OPTIMIZERS: Registry[RowOptimizer] = Registry(
    "optimizer", "trainer.optimizers", "OPTIMIZER", extension="optimizers", facts=catalog.OPTIMIZERS
)
