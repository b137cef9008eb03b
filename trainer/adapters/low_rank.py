"""out + scaling * B A x for the rows of k slots, with a backward pass of as few operations as there can be.

torch's own would bring the gradients of A and B transposed, and copy each once more into the row that they are part of.
"""

from typing import Any

import torch
from torch import Tensor


def add_low_rank(x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor) -> Tensor:
    """(k, n, out), with x (k, n, in), A (k, rank, in), B (k, out, rank), scaling (k,)."""
    added: Tensor = _LowRank.apply(x, a, b, scaling[:, None, None], out)  # pyright: ignore[reportUnknownMemberType]
    return added


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor) -> Tensor:
        """Computed, and kept for the backward pass, in what autocast says."""
        ctx.dtypes = x.dtype, a.dtype, out.dtype
        x, a, b, out = (_cast(each) for each in (x, a, b, out))
        h = _cast(torch.bmm(x, a.mT) * scaling)  # (k, n, rank)
        ctx.save_for_backward(x, a, b, scaling, h)
        return torch.baddbmm(out, h, b.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_out,) = gradients
        x, a, b, scaling, h = ctx.saved_tensors
        of_x_type, of_weights_type, of_out_type = ctx.dtypes
        of_h = (torch.bmm(of_out, b) * scaling).to(x.dtype)  # before it was scaled
        of_x = torch.bmm(of_h, a).to(of_x_type) if ctx.needs_input_grad[0] else None
        of_a, of_b = _product(of_h, x), _product(of_out, h)
        return of_x, of_a.to(of_weights_type), of_b.to(of_weights_type), None, of_out.to(of_out_type)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left^T right, (k, m, n) of (k, rows, m) and (k, rows, n)."""
    if _as_torch(left.device):
        return torch.bmm(right.mT, left).mT
    return torch.bmm(left.mT, right)


def _as_torch(device: torch.device) -> bool:
    """Transposed, as torch's own gradients come: on a CPU adapters that earlier versions began have these bits."""
    return device.type == "cpu"


def _cast(tensor: Tensor) -> Tensor:
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if kind != "meta" and torch.is_autocast_enabled(kind) else tensor
