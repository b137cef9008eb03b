"""Remembers whose runs cannot be launched for now, for a fault that only the operators can mend: nothing more is admitted there until it is
due.

Only what the service meets in folders of its own counts: what stands in the way of one job's folder holds up nobody else. In memory,
of each replica: one that does not know yet launches once and learns it. Times are of a clock that nobody sets
(`Database.even_now`).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lorafleet.backoff import doubled_s
from lorafleet.errors import OperatorsFault

FIRST_S = 5.0
MOST_S = 60.0


def told(error: OperatorsFault) -> str:
    """What the jobs say that wait for it."""
    return f"waits for the operators of the service: {error.message}"


@dataclass(frozen=True)
class _Hold:
    error: OperatorsFault
    until: datetime
    times: int


@dataclass
class LaunchHolds:
    """By the reference of the store credentials that runs are launched with; `""` are the service's own."""

    _faults: dict[str, _Hold] = field(default_factory=dict[str, _Hold])

    def note(self, reference: str, error: OperatorsFault, now: datetime) -> None:
        """A launch met this. While it lasts, it is tried ever more rarely."""
        before = self._faults.get(reference)
        if before is not None and before.until > now:  # several launches were under way: one more says nothing new
            return
        times = 1 if before is None else before.times + 1
        wait_s = doubled_s(FIRST_S, MOST_S, times - 1)
        self._faults[reference] = _Hold(error, now + timedelta(seconds=wait_s), times)

    def clear(self, reference: str) -> None:
        """A launch went through."""
        self._faults.pop(reference, None)

    def of(self, reference: str, now: datetime) -> OperatorsFault | None:
        """What is in the way of runs with these credentials, if anything is."""
        known = self._faults.get(reference)
        return known.error if known is not None and known.until > now else None
