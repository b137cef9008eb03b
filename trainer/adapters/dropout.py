"""Dropout on an adapter's input whose mask depends on (seed, style, step, sample, layer) alone."""

from collections.abc import Sequence

import torch
from torch import Tensor


def keyed_dropout(x: Tensor, seeds: Sequence[int], *, rate: float, layer: int) -> Tensor:
    """x (rows, …) with a mask for each row, drawn from the row's seed and the layer's number."""
    rows = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed((seed + layer) % 2**63)) for seed in seeds]
    return x * (torch.stack(rows).to(x.device) >= rate) / (1 - rate)
