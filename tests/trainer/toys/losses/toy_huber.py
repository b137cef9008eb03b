"""Huber's loss: squared near the target, straight far from it."""

import torch.nn.functional as F
from torch import Tensor

from tests.trainer.toys.catalog.losses.toy_huber import FACTS
from trainer.losses.protocol import Loss, mean


class Huber:
    """See losses.protocol.Loss."""

    facts = FACTS

    def __call__(self, predicted: Tensor, target: Tensor, scales: Tensor, mask: Tensor | None = None) -> Tensor:
        return mean(F.smooth_l1_loss(predicted.float(), target.float(), reduction="none", beta=0.5), mask)


LOSS: Loss = Huber()
