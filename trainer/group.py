"""The workers of a run as one group: rank, size, and the few things they say to each other.

Rank and size come from torch.distributed: accelerate's own are wrong under DeepSpeed on CPU.
Small messages go over gloo on the CPU also where gradients go over NCCL, so that they never wait for the GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lorafleet.errors import RunFailed

T = TypeVar("T")

# Rank 0 draws and uploads while the others wait.
TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class Group:
    """This worker's place among the workers."""

    rank: int
    world_size: int
    cpu: Any = None  # a gloo process group; None when alone

    @classmethod
    def current(cls) -> "Group":
        """The group that Ray Train has set up, or a lone worker's."""
        if not dist.is_initialized():
            return cls(rank=0, world_size=1)
        cpu = dist.new_group(backend="gloo", timeout=TIMEOUT) if dist.get_world_size() > 1 else None
        return cls(rank=dist.get_rank(), world_size=dist.get_world_size(), cpu=cpu)

    def agree(self, value: T | None) -> T:
        """Rank 0's value, on every rank."""
        if self.world_size == 1:
            return value  # type: ignore[return-value]
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.cpu)
        return box[0]  # type: ignore[return-value]

    def on_first(self, action: Callable[[], T]) -> T:
        """The result of rank 0's action on every rank; if it raises RunFailed, every rank does."""
        result: T | None = None
        error: RunFailed | None = None
        if self.rank == 0:
            try:
                result = action()
            except RunFailed as failed:
                error = failed
        if error := self.agree(error):
            raise error
        return self.agree(result)

    def raise_together(self, error: RunFailed | None) -> None:
        """Raises, on every rank, the first rank's RunFailed if any has one."""
        errors: list[Any] = [error]
        if self.world_size > 1:
            errors = [None] * self.world_size
            dist.all_gather_object(errors, error, group=self.cpu)  # pyright: ignore[reportArgumentType]
        for each in errors:
            if each is not None:
                raise each

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks of a CPU tensor, on every rank."""
        if self.world_size > 1:
            dist.all_reduce(tensor, group=self.cpu)
        return tensor

    def any(self, mine: bool) -> bool:
        """Whether it is so on any rank, on every rank."""
        return bool(self.sum(torch.tensor([int(mine)])).item())

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.cpu)
