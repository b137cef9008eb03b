"""Lion (Chen et al. 2023), by pytorch-optimizer."""

from typing import Any

from pytorch_optimizer import Lion

from lorafleet.catalog.optimizers import lion
from trainer.optimizers._library import LibraryOptimizer
from trainer.optimizers.protocol import RowOptimizer, StyleUpdate

BETAS = (0.9, 0.99)  # the paper's


def options(update: StyleUpdate) -> dict[str, Any]:
    return {"lr": update.learning_rate, "betas": BETAS, "weight_decay": update.spec.weight_decay}


OPTIMIZER: RowOptimizer = LibraryOptimizer(lion.FACTS, Lion, options, keeps_numbers=False)
