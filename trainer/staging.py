"""Brings tensors to the training device: by few copies, and without the host waiting for them, from pinned memory where that is a GPU."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNED_TO = 16  # bytes: a multiple of every number's


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's, there. Pinned memory is not used again before it was copied: torch's own allocator sees to that."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def together(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors of the host's, there, by one copy of all their bytes."""
    return dict(tensors) if device.type == "cpu" else packed(tensors, device)


def packed(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copies of them on whatever device, made there of one copy."""
    return in_one_piece(tensors, device).there(device)


@dataclass(frozen=True)
class OnePiece:
    """Tensors by name, one behind the other in the host's memory, from which a device copies them without the host."""

    tensors: Mapping[str, Tensor]  # that it is a copy of: their shapes
    whole: Tensor  # (bytes,)

    def there(self, device: torch.device) -> dict[str, Tensor]:
        return dict(zip(self.tensors, _places(self.whole.to(device, non_blocking=True), self.tensors), strict=True))


def in_one_piece(tensors: Mapping[str, Tensor], device: torch.device) -> OnePiece:
    """Ready for that device."""
    size = sum(map(_aligned_bytes, tensors.values()))
    whole = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for place, tensor in zip(_places(whole, tensors), tensors.values(), strict=True):
        place.copy_(tensor)
    return OnePiece(tensors, whole)


def _places(whole: Tensor, tensors: Mapping[str, Tensor]) -> Iterator[Tensor]:
    """Where each lies, as it is shaped."""
    parts = torch.split_with_sizes(whole, [_aligned_bytes(tensor) for tensor in tensors.values()])
    for part, tensor in zip(parts, tensors.values(), strict=True):
        yield part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)


def _aligned_bytes(tensor: Tensor) -> int:
    return tensor.nbytes + -tensor.nbytes % _ALIGNED_TO
