"""The seam of a loss: one number for each row. A new one is one file beside squared.py, and its facts (lorafleet.catalog.losses)."""

from typing import Protocol

from torch import Tensor

from lorafleet.catalog.loss import Loss as LossFacts


class Loss(Protocol):
    """Stateless."""

    facts: LossFacts

    def __call__(self, predicted: Tensor, target: Tensor, scales: Tensor, mask: Tensor | None = None) -> Tensor:
        """(rows, ...) and (rows, ...) -> (rows,), fp32.

        `scales`: (rows,), the size of an error from which on a robust loss takes it for an outlier, which may follow the rows' times.
        `mask` weighs the places of a row; None: all alike.
        """
        ...


def mean(errors: Tensor, mask: Tensor | None) -> Tensor:
    """Of each row's places, (rows, ...) -> (rows,); with a mask weighted by it."""
    over = tuple(range(1, errors.ndim))
    if mask is None:
        return errors.mean(dim=over)
    return (errors * mask).sum(dim=over) / mask.expand_as(errors).sum(dim=over).clamp_min(1e-8)
