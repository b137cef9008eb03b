"""out + scaling * B A x for the rows of k slots, with a backward pass of as few operations as there can be.

torch's own would bring the gradients of A and B transposed, and copy each once more into the row that they are part of.
"""

from typing import Any

import torch
from torch import Tensor


def add_low_rank(x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor) -> Tensor:
    """Shaped as out (rows, ..., out), with x (rows, ..., in), A (k, rank, in), B (k, out, rank), scaling (k,); a slot has rows / k rows."""
    added: Tensor = _LowRank.apply(x, a, b, scaling, out)  # pyright: ignore[reportUnknownMemberType]
    return added


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor) -> Tensor:
        """Computed, and kept for the backward pass, in what autocast says. Views are made in here: outside each is a step back, too."""
        ctx.dtypes, ctx.shapes = (x.dtype, a.dtype, out.dtype), (x.shape, out.shape)
        if (computes := _autocast_to(x.device.type)) is not None:
            x, a, b, out = (each.to(computes) for each in (x, a, b, out))
        slots = len(a)
        x, factor = x.reshape(slots, -1, x.shape[-1]), scaling.view(-1, 1, 1)  # (k, n, in)
        h = torch.bmm(x, a.mT) * factor  # (k, n, rank)
        h = h if computes is None else h.to(computes)
        ctx.save_for_backward(x, a, b, factor, h)
        return torch.baddbmm(out.reshape(slots, -1, out.shape[-1]), h, b.mT).view(out.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, factor, h = ctx.saved_tensors
        (of_x_type, of_weights_type, of_out_type), (x_shape, out_shape) = ctx.dtypes, ctx.shapes
        of_out = gradients[0].reshape(len(a), -1, out_shape[-1])
        of_h = _as(torch.bmm(of_out, b) * factor, x.dtype)  # before it was scaled
        of_x = _as(torch.bmm(of_h, a), of_x_type).view(x_shape) if ctx.needs_input_grad[0] else None
        of_a, of_b = _product(of_h, x), _product(of_out, h)
        return of_x, _as(of_a, of_weights_type), _as(of_b, of_weights_type), None, _as(gradients[0], of_out_type)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left^T right, (k, m, n) of (k, rows, m) and (k, rows, n)."""
    if _as_torch(left.device):
        return torch.bmm(right.mT, left).mT
    return torch.bmm(left.mT, right)


def _as_torch(device: torch.device) -> bool:
    """Transposed, as torch's own gradients come: on a CPU adapters that earlier versions began have these bits."""
    return device.type == "cpu"


def _autocast_to(kind: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Asked first: a call that does nothing costs as much as a small product, and there are hundreds in a step."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
