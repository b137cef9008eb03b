"""What torch gives no whole types for, with types: each is torch's own, so no number changes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import checkpoint as checkpointing

_torch: Any = torch
_checkpointing: Any = checkpointing


class _VectorNorm(Protocol):
    def __call__(self, x: Tensor, /, *, dim: int | None = None) -> Tensor: ...


class _FusedAdamW(Protocol):
    def __call__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        exp_avgs: Sequence[Tensor],
        exp_avg_sqs: Sequence[Tensor],
        max_exp_avg_sqs: Sequence[Tensor],
        state_steps: Sequence[Tensor],
        /,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        eps: float,
        amsgrad: bool,
        maximize: bool,
        grad_scale: Tensor,
        found_inf: Tensor,
    ) -> object: ...


from_array: Callable[[NDArray[np.generic]], Tensor] = _torch.from_numpy  # shares the array's memory
numbers: Callable[[Tensor], list[float]] = _torch.Tensor.tolist  # of a tensor of one dimension
vector_norm: _VectorNorm = _torch.linalg.vector_norm
qr: Callable[[Tensor], tuple[Tensor, Tensor]] = _torch.linalg.qr
inverse: Callable[[Tensor], Tensor] = _torch.linalg.inv
kron: Callable[[Tensor, Tensor], Tensor] = _torch.kron
unflatten: Callable[[Tensor, int, Sequence[int]], Tensor] = _torch.unflatten
foreach_norm: Callable[[Sequence[Tensor]], list[Tensor]] = _torch._foreach_norm  # of each, over all its numbers
block_diag: Callable[..., Tensor] = _torch.block_diag
named_modules: Callable[[nn.Module], Iterator[tuple[str, nn.Module]]] = _torch.nn.Module.named_modules
fused_adamw_: _FusedAdamW = _torch._fused_adamw_
checkpoint: Callable[..., Any] = _checkpointing.checkpoint
compile_: Callable[..., Callable[..., Any]] = _torch.compile
manual_seed: Callable[[int], object] = _torch.manual_seed
fork_rng: Callable[..., AbstractContextManager[None]] = _torch.random.fork_rng


def svd(whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, singular values and V^T, no larger than need be."""
    return _torch.linalg.svd(whole, full_matrices=False)


def bias_of(layer: nn.Linear) -> nn.Parameter | None:
    """None: it has none, where torch's types say that it has."""
    untyped: Any = layer
    return untyped.bias
