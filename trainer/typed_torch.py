"""What torch gives no whole types for, with types: each is torch's own function under another name, so no number changes."""

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_torch: Any = torch


class _FromArray(Protocol):
    def __call__(self, array: NDArray[np.generic], /) -> Tensor: ...


class _Numbers(Protocol):
    def __call__(self, tensor: Tensor, /) -> list[float]: ...


from_array: _FromArray = _torch.from_numpy  # shares the array's memory
numbers: _Numbers = _torch.Tensor.tolist  # of a tensor of one dimension
