"""Huber's loss: squared near the target, straight far from it."""

import torch.nn.functional as F
from torch import Tensor


def huber(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """See losses.protocol.Loss."""
    errors = F.smooth_l1_loss(predicted.float(), target.float(), reduction="none", beta=0.5)
    return (errors if mask is None else errors * mask).mean(dim=tuple(range(1, errors.ndim)))
