"""Time as an outside system: one Protocol, the real ones, and a fake kept beside them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class FollowingClock:
    """Set by another's again and again, and going on by itself in between: replicas that follow one database agree on the
    time, whatever their machines' clocks say."""

    def __init__(self) -> None:
        self._told = datetime.now(UTC)
        self._told_at = time.monotonic()

    def follow(self, now: datetime) -> None:
        """The other's time at this moment."""
        self._told, self._told_at = now, time.monotonic()

    def now(self) -> datetime:
        return self._told + timedelta(seconds=time.monotonic() - self._told_at)


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
