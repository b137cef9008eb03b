"""Decides when to retry, and for how long: exponential back-off with full jitter, deadlines. Does not wait."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lorafleet.backoff import doubled_s
from lorafleet.errors import DeadlineExceeded, LorafleetError


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a caller keeps retrying an unreachable server, and how long it waits in between.

    Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): many watchers of a restarted server return spread out.
    """

    total_s: float = 30.0
    first_s: float = 0.2
    most_s: float = 5.0
    now: Callable[[], float] = time.monotonic
    draw: Callable[[float, float], float] = random.uniform
    on_wait: Callable[[LorafleetError, float], None] = lambda error, left_s: None  # called before each wait


@dataclass
class Tries:
    """The attempts of one call or stream."""

    patience: Patience
    _failures: int = 0
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.patience.now()

    def succeeded(self) -> None:
        """A response came: patience starts over."""
        self._failures = 0
        self._since = self.patience.now()

    def delay_after(self, error: LorafleetError) -> float:
        """Seconds to wait before the next try. Raises `error` when trying again cannot help or patience has run out.

        A delay requested by the server is added to ours, which then only spreads the callers; one longer than the remaining
        patience is not waited for.
        """
        left_s = self.patience.total_s - (self.patience.now() - self._since)
        asked_s = error.retry_delay_s or 0.0
        if not error.retryable or left_s <= asked_s:
            raise error
        self.patience.on_wait(error, left_s)
        most_s = doubled_s(self.patience.first_s, self.patience.most_s, self._failures)
        self._failures += 1
        return min(left_s, asked_s + self.patience.draw(0, most_s))


@dataclass(frozen=True)
class Deadline:
    """When all attempts must be done; `at` is a time of the clock `now`, None means never."""

    at: float | None = None
    now: Callable[[], float] = time.monotonic

    def or_after(self, timeout_s: float | None) -> "Deadline":
        """The earlier of this one and `timeout_s` from now."""
        if timeout_s is None:
            return self
        at = self.now() + timeout_s
        return Deadline(at if self.at is None else min(self.at, at), self.now)

    def cut(self, timeout_s: float | None) -> float | None:
        """`timeout_s`, or what is left if that is less."""
        if self.at is None:
            return timeout_s
        left_s = max(0.0, self.at - self.now())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def check(self, error: LorafleetError | None = None) -> None:
        """Raises DeadlineExceeded once the time is up; `error` is the most recent failure."""
        if self.at is not None and self.now() >= self.at:
            last = f" ({error.message})" if error else ""
            raise DeadlineExceeded(f"the deadline has passed{last}") from error
