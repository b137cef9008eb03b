"""Adafactor (Shazeer and Stern 2018) at the rate that a spec gives, without momentum; by pytorch-optimizer."""

from typing import Any

from pytorch_optimizer import AdaFactor

from lorafleet.catalog.optimizers import adafactor
from trainer.optimizers._library import LibraryOptimizer
from trainer.optimizers.protocol import RowOptimizer, StyleUpdate


def _options(update: StyleUpdate) -> dict[str, Any]:
    """The rate is the spec's: neither relative to the step nor to the size of the weights, of which half begin as zeros."""
    how = {"betas": (None, 0.999), "relative_step": False, "scale_parameter": False}
    return {"lr": update.learning_rate, "weight_decay": update.spec.weight_decay, **how}


OPTIMIZER: RowOptimizer = LibraryOptimizer(adafactor.FACTS, AdaFactor, _options)
