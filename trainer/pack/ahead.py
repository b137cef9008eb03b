"""The next step's draws and batches, made by a thread while the device is at this one. Draws have keys: made at any time they are the same.

Only on GPUs: on a CPU the thread would take what the step computes with. A step ahead at most, and of its passes the first few.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch

from trainer.families.protocol import Family
from trainer.objectives.draws import Draw
from trainer.pack.batch import Gathered, PackBatch, failing_in, gathered
from trainer.pack.member import Member
from trainer.pack.passes import Pass, Work

MOST_PASSES = 4  # of a step, whose batches are in memory ahead of it
Drawn = Sequence[Sequence[Draw]]  # a member's part of a step, by passes


@dataclass(frozen=True)
class Seat:
    """A member's part of a step that is to come."""

    member: Member
    step: int
    bank: int
    slot: int


@dataclass(frozen=True)
class Staged:
    """A step as the thread made it."""

    drawn: Mapping[Member, Drawn]
    plan: Sequence[Pass] = ()
    batches: Sequence[Gathered] = ()  # of its first passes
    failures: Mapping[Member, Exception] = field(default_factory=dict[Member, Exception])

    def batch(self, number: int, device: torch.device) -> PackBatch | None:
        """Of a pass; None: it was not among the first."""
        return self.batches[number].there(device) if number < len(self.batches) else None

    def give(self, member: Member) -> None:
        """Its draws; raises what went wrong with them, or with its rows."""
        if (error := self.failures.get(member)) is not None:
            raise error
        member.drawn = list(self.drawn[member])


class Ahead:
    """Makes a step ahead. Whoever draws in the foreground takes what is there first: so nobody draws of a member at the same time."""

    def __init__(
        self,
        family: Family,
        device: torch.device,
        draw: Callable[[Member, int], Drawn],
        plan: Callable[[Sequence[Work]], list[Pass]],
    ) -> None:
        self._family, self._device, self._draw, self._plan = family, device, draw, plan
        self.is_on = device.type == "cuda"
        self._thread: ThreadPoolExecutor | None = None
        self._coming: tuple[Sequence[Seat], Future[Staged]] | None = None

    def begin(self, seats: Sequence[Seat]) -> None:
        """Begins to make the step that these have next; nothing where it depends on how this one goes, or is a member's last."""
        if not self.is_on or any(each.member.waits_for_its_loss or each.step >= each.member.spec.training.max_steps for each in seats):
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "ahead", initializer=partial(_use, self._device))
        self._coming = (seats, self._thread.submit(self._made, seats))

    def take(self, seats: Sequence[Seat]) -> Staged | None:
        """What was made for just these; None: nothing, for others were to come."""
        if self._coming is None:
            return None
        (expected, made), self._coming = self._coming, None
        error = made.exception()  # waits for it
        if list(expected) != list(seats):
            return None
        if error is not None:
            raise error
        return made.result()

    def close(self) -> None:
        """Ends the thread, after the step that it makes at most."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._coming = None

    def _made(self, seats: Sequence[Seat]) -> Staged:
        drawn, failures = dict[Member, Drawn](), dict[Member, Exception]()
        for each in seats:
            try:
                drawn[each.member] = self._draw(each.member, each.step)
            except Exception as error:
                failures[each.member] = error
        return Staged(drawn, failures=failures) if failures else self._with_batches(seats, drawn)

    def _with_batches(self, seats: Sequence[Seat], drawn: Mapping[Member, Drawn]) -> Staged:
        members, batches = [each.member for each in seats], list[Gathered]()
        plan = self._plan([work(number, each, drawn[each.member]) for number, each in enumerate(seats)])
        for each in plan[:MOST_PASSES]:
            try:
                batches.append(gathered(each, members, self._family).staged(self._device))
            except Exception:
                if (found := failing_in(each, members, self._family)) is None:
                    raise  # it is no one style's
                style, error = found
                return Staged(drawn, failures={members[style]: error})
        return Staged(drawn, plan, batches)


def work(number: int, seat: Seat, drawn: Drawn) -> Work:
    """Of style `number` of a step."""
    return Work(number, seat.bank, seat.slot, tuple(seat.member.latent_shape(drawn[0])), drawn)


def _use(device: torch.device) -> None:
    """A thread pins memory for the device that is its own current one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
