"""Prodigy (Mishchenko and Defazio 2024): finds its rate by itself, of which a spec's is a factor; by pytorch-optimizer."""

from typing import Any

from pytorch_optimizer import Prodigy

from lorafleet.catalog.optimizers import prodigy
from trainer.optimizers._library import LibraryOptimizer, adam_options
from trainer.optimizers.protocol import RowOptimizer, StyleUpdate


def _options(update: StyleUpdate) -> dict[str, Any]:
    """While the rate warms up it is left out of the estimate of the distance, as its authors advise."""
    return {**adam_options(update), "safeguard_warmup": update.spec.lr_warmup_steps > 0}


OPTIMIZER: RowOptimizer = LibraryOptimizer(prodigy.FACTS, Prodigy, _options)
