"""The workers of a run as one group: rank, size, and the few things they say to each other.

Rank and size come from torch.distributed: accelerate's own are wrong under DeepSpeed on CPU.
Small messages go over gloo on the CPU also where gradients go over NCCL, so that they never wait for the GPU.

While the workers act on one style (`trainer.style_isolation.only`), each message begins with whether all are well. So a worker
that fails there, wherever it is, is heard by the others at their next word to each other, and all leave the style together.
"""

import pickle
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lorafleet.errors import RunFailed
from trainer.style_isolation import MAX_MESSAGE_CHARS

T = TypeVar("T")

# Rank 0 draws and uploads while the others wait.
TIMEOUT = timedelta(hours=1)


class GroupBroken(Exception):
    """The workers can no longer speak to each other: another has died."""


@dataclass
class _Style:
    """The style that the workers act on, if they do."""

    is_at_hand: bool = False
    failed: RunFailed | None = None  # as all have heard


@dataclass(frozen=True)
class Group:
    """This worker's place among the workers."""

    rank: int
    world_size: int
    cpu: Any = None  # a gloo process group; None when alone
    _style: _Style = field(default_factory=_Style, repr=False, compare=False)

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
        if self.rank == 0:
            pickle.dumps(value)  # what cannot be sent is found before others wait for it
        self._are_well()
        box = [value]
        with _speaking():
            dist.broadcast_object_list(box, src=0, group=self.cpu)
        return box[0]  # type: ignore[return-value]

    def on_first(self, action: Callable[[], T]) -> T:
        """The result of rank 0's action on every rank. For an action on one style: if it raises, all hear of it."""
        return self.agree(action() if self.rank == 0 else None)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks of a CPU tensor, on every rank."""
        self._are_well()
        return self._sum(tensor)

    def any(self, mine: bool) -> bool:
        """Whether it is so on any rank, on every rank."""
        return bool(self.sum(torch.tensor([int(mine)])).item())

    def barrier(self) -> None:
        self._are_well()
        if self.world_size > 1:
            with _speaking():
                dist.barrier(group=self.cpu)

    # One style

    def begin_style(self) -> None:
        """From here to `end_style` the workers act on one style, and hear of each other's failures."""
        self._style.is_at_hand, self._style.failed = True, None

    def end_style(self) -> None:
        self._style.is_at_hand = False

    @property
    def has_agreed(self) -> bool:
        """Whether the failure of the last style is known to all workers."""
        return self.world_size == 1 or self._style.failed is not None

    def meet(self, mine: RunFailed | None = None) -> None:
        """Raises, on every rank, the first rank's failure of the style if any has one."""
        if self._style.failed is None and self.world_size > 1:
            self._style.failed = self._first_failure(mine)
        if self._style.failed is not None:
            raise self._style.failed

    def failures(self, mine: list[RunFailed | None]) -> list[RunFailed | None]:
        """The first rank's failure of each style, on every rank; costs next to nothing while there is none."""
        if self.world_size == 1 or not self.any(any(mine)):
            return mine
        return [_first(each) for each in zip(*self._from_all([_sent(error) for error in mine]), strict=True)]

    def _are_well(self) -> None:
        if self._style.is_at_hand:
            self.meet()

    def _first_failure(self, mine: RunFailed | None) -> RunFailed | None:
        is_any = self._sum(torch.tensor([int(mine is not None)])).item()
        return _first(self._from_all(_sent(mine))) if is_any else None

    def _sum(self, tensor: Tensor) -> Tensor:
        if self.world_size > 1:
            with _speaking():
                dist.all_reduce(tensor, group=self.cpu)
        return tensor

    def _from_all(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.world_size
        with _speaking():
            dist.all_gather_object(found, mine, group=self.cpu)
        return found


# What travels of a failure: of a known size, and of kinds that every worker can read.
_Sent = tuple[str, str, bool]


def _sent(error: RunFailed | None) -> _Sent | None:
    return None if error is None else (error.message[:MAX_MESSAGE_CHARS], error.reason, error.retryable)


def _first(sent: Any) -> RunFailed | None:
    found: _Sent | None = next((each for each in sent if each is not None), None)
    return None if found is None else RunFailed(found[0], reason=found[1], retryable=found[2])


@contextmanager
def _speaking() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:  # all that torch raises when a peer is gone
        raise GroupBroken(f"the workers have lost each other: {error}") from error
