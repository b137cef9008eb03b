"""The seam of a loss: one number for each row."""

from typing import Protocol

from torch import Tensor


class Loss(Protocol):
    """Stateless."""

    def __call__(self, predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """(rows, ...) and (rows, ...) -> (rows,), fp32. `mask` weighs the places of a row; None: all alike."""
        ...
