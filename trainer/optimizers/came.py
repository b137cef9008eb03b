"""CAME (Luo et al. 2023), by pytorch-optimizer."""

from typing import Any

from pytorch_optimizer import CAME

from lorafleet.catalog.optimizers import came
from trainer.optimizers._library import LibraryOptimizer
from trainer.optimizers.protocol import RowOptimizer, StyleUpdate

BETAS = (0.9, 0.999, 0.9999)  # the paper's


def _options(update: StyleUpdate) -> dict[str, Any]:
    return {"lr": update.learning_rate, "betas": BETAS, "weight_decay": update.spec.weight_decay}


OPTIMIZER: RowOptimizer = LibraryOptimizer(came.FACTS, CAME, _options)
