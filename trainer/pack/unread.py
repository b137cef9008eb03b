"""Steps whose losses the host has not read. On a GPU a read waits for all that was launched: so they are read in batches, steps later.

What is read does not depend on when: the losses of a step's rows, and whether each style's gradient was finite, stay on the device.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.group import Group
from trainer.pack.batch import PADDING
from trainer.pack.member import Member
from trainer.typed_torch import numbers

MOST_STEPS = 10  # unread on a device; on a CPU a read costs nothing, and each step is read at once
MOST_S = 2.0  # that a step stays unread for, where others are launched


@dataclass(frozen=True)
class RowLosses:
    """Of one pass."""

    styles: Sequence[int]  # of each row, the number of its style in the step
    losses: Tensor  # (rows,)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A member's part of a step."""

    member: Member
    number: int  # of the step, for this member, from 1
    bank: int
    slot: int  # in this step


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A step whose passes and updates were all launched."""

    parts: Sequence[Part]
    passes: Sequence[RowLosses]
    finite: Sequence[Tensor]  # of each bank, (styles,): whether the gradients were
    began_s: float


@dataclass(frozen=True)
class Stepped:
    """What a step was for one member."""

    number: int
    loss: float  # the sum over its rows, on all workers
    gradient_is_finite: bool
    duration_s: float


class Unread:
    """Steps in their order."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.most_steps = 1 if device.type == "cpu" else MOST_STEPS
        self._clock = clock
        self._steps: list[Launched] = []

    def add(self, step: Launched) -> None:
        self._steps.append(step)

    @property
    def is_full(self) -> bool:
        return len(self._steps) >= self.most_steps

    @property
    def is_old(self) -> bool:
        """By this worker's clock."""
        return bool(self._steps) and self._clock() - self._steps[0].began_s >= MOST_S

    def read(self, group: Group) -> dict[Member, list[Stepped]]:
        """Waits for the steps, and gives each member's own. Collective."""
        steps, self._steps = self._steps, []
        if not steps:
            return {}
        losses = iter(numbers(torch.cat([each.losses for step in steps for each in step.passes]).double().cpu()))
        sums = [total for step in steps for total in _sums(step, losses)]
        totals = iter(numbers(group.sum(torch.tensor(sums, dtype=torch.float64))))
        flags = iter(numbers(torch.cat([each for step in steps for each in step.finite]).cpu()))
        duration_s = (self._clock() - steps[0].began_s) / len(steps)
        found: dict[Member, list[Stepped]] = {}
        for step in steps:
            finite = [[bool(next(flags)) for _ in range(len(bank))] for bank in step.finite]
            for part in step.parts:
                stepped = Stepped(part.number, next(totals), finite[part.bank][part.slot], duration_s)
                found.setdefault(part.member, []).append(stepped)
        return found


def _sums(step: Launched, losses: Iterator[float]) -> list[float]:
    """Over each part's rows on this worker."""
    sums = [0.0] * len(step.parts)
    for each in step.passes:
        for style, loss in zip(each.styles, losses, strict=False):  # which hold the next passes' too
            if style != PADDING:
                sums[style] += loss
    return sums
