"""Optimizers by the name that a spec gives them. Each is imported on demand."""

from lorafleet.catalog.registry import Registry
from trainer.optimizers.protocol import RowOptimizer

OPTIMIZERS: Registry[RowOptimizer] = Registry("optimizer", "trainer.optimizers", "OPTIMIZER", extension="optimizers")
