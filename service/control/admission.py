"""Which queued jobs may start now. Knows nothing of databases, clocks or Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class WaitReason(StrEnum):
    """Shown to the user as it stands."""

    NO_FREE_RUN = "NO_FREE_RUN"


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A job that may start as far as its own back-off goes."""

    uid: str


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may run at once."""

    max_running_runs: int


@dataclass(frozen=True, kw_only=True)
class Admit:
    """Start it."""

    uid: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Not yet."""

    uid: str
    reason: WaitReason
    message: str


Decision = Admit | Wait


def admit(queue: Sequence[QueuedJob], num_live_runs: int, limits: Limits) -> list[Decision]:
    """First come, first served: `queue` is oldest first."""
    free = max(0, limits.max_running_runs - num_live_runs)
    told = f"waits for a free run: {limits.max_running_runs} of {limits.max_running_runs} at work (limit max_running_runs)"
    return [
        Admit(uid=job.uid) if place < free else Wait(uid=job.uid, reason=WaitReason.NO_FREE_RUN, message=told)
        for place, job in enumerate(queue)
    ]
