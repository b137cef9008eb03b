"""The pseudo-Huber loss: squared where errors are small, straight from its scale on, so that a broken picture pulls less."""

from torch import Tensor

from lorafleet.catalog.losses import huber
from trainer.losses.protocol import Loss, mean


class PseudoHuber:
    """See losses.protocol.Loss. Written so that small errors count as squared ones do (Khrapov et al. 2024, eq. 4, times 2)."""

    facts = huber.FACTS

    def __call__(self, predicted: Tensor, target: Tensor, scales: Tensor, mask: Tensor | None = None) -> Tensor:
        squares = (predicted.float() - target.float()).pow(2)
        scale = scales.reshape(-1, *[1] * (squares.ndim - 1))
        # sqrt(e^2 + s^2) - s, written so that nothing of a small error is lost.
        return mean(2 * scale * squares / ((squares + scale.pow(2)).sqrt() + scale), mask)


LOSS: Loss = PseudoHuber()
