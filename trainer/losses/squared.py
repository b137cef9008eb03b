"""The mean squared error of each row."""

from torch import Tensor

from lorafleet.catalog.losses import squared
from trainer.losses.protocol import Loss, mean


class Squared:
    """See losses.protocol.Loss."""

    facts = squared.FACTS

    def __call__(self, predicted: Tensor, target: Tensor, scales: Tensor, mask: Tensor | None = None) -> Tensor:
        return mean((predicted.float() - target.float()).pow(2), mask)


LOSS: Loss = Squared()
