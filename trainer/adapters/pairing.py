"""Rows of zeros behind those of a slot that would be alone in a layer, and their removal: a lone matrix is multiplied in another way.

They lie in memory as rows of another slot would, in gradients too: in which order a product adds up depends on where its numbers lie.
"""

from typing import Any

import torch
from torch import Tensor


def paired(rows: Tensor) -> Tensor:
    """With as many rows of zeros behind them, that nobody is told of: nothing of one style enters another's slot."""
    both: Tensor = _Paired.apply(rows)  # pyright: ignore[reportUnknownMemberType]
    return both


def unpaired(rows: Tensor) -> Tensor:
    """Without the latter half."""
    first: Tensor = _Unpaired.apply(rows)  # pyright: ignore[reportUnknownMemberType]
    return first


class _Paired(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _with_zeros(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _first_half(gradients[0])


class _Unpaired(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _first_half(rows).detach()  # no view to autograd: a model may change it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _with_zeros(gradients[0])


def _first_half(rows: Tensor) -> Tensor:
    return rows[: len(rows) // 2]


def _with_zeros(rows: Tensor) -> Tensor:
    count = len(rows)
    shape = (2 * count, *rows.shape[1:])
    both = rows.new_empty_strided(shape, rows.stride()) if _lie_apart(rows) else rows.new_empty(shape)
    both[:count] = rows
    both[count:] = 0
    return both


def _lie_apart(rows: Tensor) -> bool:
    """Whether each row has its own piece of memory, and each number its own place."""
    extent = 1
    for stride, size in sorted(zip(rows.stride()[1:], rows.shape[1:], strict=True)):
        if size > 1 and stride < extent:
            return False
        extent += (size - 1) * stride
    return rows.stride(0) >= extent
