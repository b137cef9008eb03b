"""The mean squared error of each row."""

from torch import Tensor


def squared(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """See losses.protocol.Loss. With a mask: the mean weighted by it."""
    errors = (predicted.float() - target.float()).pow(2)
    over = tuple(range(1, errors.ndim))
    if mask is None:
        return errors.mean(dim=over)
    return (errors * mask).sum(dim=over) / mask.expand_as(errors).sum(dim=over).clamp_min(1e-8)
