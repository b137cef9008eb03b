"""Tells the time: one Protocol, the real clocks, and a fake kept beside them; and what tells a step of the time of day."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

STEP_S = 5.0  # the time of day is set when it moves by more, against a clock that nobody sets
MOST_SLEW = 0.01  # of the time that passes: NTP slews by a twentieth of that


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC. It is set by people and by NTP, and may step in either direction."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some moment, which nobody sets; what a machine slept counts."""
        ...


def monotonic_s() -> float:
    """Of this machine: seconds since it was booted, with those in which it was suspended where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return monotonic_s()


class FollowingClock:
    """Set by another's again and again, and going on by itself in between: replicas that follow one database agree on the
    time, whatever their machines' clocks say."""

    def __init__(self) -> None:
        self._told = datetime.now(UTC)
        self._told_at_s = monotonic_s()

    def follow(self, now: datetime) -> None:
        """The other's time at this moment."""
        self._told, self._told_at_s = now, monotonic_s()

    def now(self) -> datetime:
        return self._told + timedelta(seconds=monotonic_s() - self._told_at_s)

    def monotonic_s(self) -> float:
        return monotonic_s()


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds

    def step(self, seconds: float) -> None:
        """The time of day is set, while no time passes."""
        self._now += timedelta(seconds=seconds)


class StepWatch:
    """Tells when the time of day was set, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._apart_s: float | None = None  # from the monotonic clock to the time of day
        self._looked_s = 0.0

    def look(self, now: datetime, monotonic_s: float, uncertain_s: float = 0.0) -> timedelta:
        """By how much the time of day was set, zero if it was not; said again and again until `now` comes without that step.

        `uncertain_s`: how long the two readings may be apart. A clock that is slewed, as NTP does it, is followed; one that goes
        wrong faster than that adds up to a step.
        """
        apart_s = now.timestamp() - monotonic_s
        if self._apart_s is None:
            self._apart_s, self._looked_s = apart_s, monotonic_s
        moved_s = apart_s - self._apart_s
        if abs(moved_s) > STEP_S + uncertain_s:
            return timedelta(seconds=moved_s)
        followed_s = max(0.0, monotonic_s - self._looked_s) * MOST_SLEW
        self._apart_s += max(-followed_s, min(followed_s, moved_s))
        self._looked_s = monotonic_s
        return timedelta(0)
