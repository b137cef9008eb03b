"""When to try again: exponential back-off with full jitter, until patience runs out. Knows no gRPC."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lorafleet.errors import LorafleetError


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a caller rides out a server that does not answer, and how it waits in between.

    Full jitter (Brooker, "Exponential Backoff And Jitter", 2015): many watchers of one restarted server come back spread out.
    """

    total_s: float = 30.0
    first_s: float = 0.2
    most_s: float = 5.0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[float, float], float] = random.uniform
    told: Callable[[LorafleetError, float], None] = lambda error, left_s: None  # before each wait


@dataclass
class Tries:
    """The tries of one call or one stream."""

    patience: Patience
    _failures: int = 0
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.patience.now()

    def succeeded(self) -> None:
        """An answer came: patience is whole again."""
        self._failures = 0
        self._since = self.patience.now()

    def pause_after(self, error: LorafleetError) -> None:
        """Wait before the next try. Raises `error` when trying again cannot help or patience has run out.

        A delay that the server asks for comes before ours, which then only spreads the callers; one that outlasts patience
        is not begun.
        """
        left_s = self.patience.total_s - (self.patience.now() - self._since)
        asked_s = error.retry_delay_s or 0.0
        if not error.retryable or left_s <= asked_s:
            raise error
        self.patience.told(error, left_s)
        most_s = min(self.patience.most_s, self.patience.first_s * 2**self._failures)
        self._failures += 1
        self.patience.sleep(min(left_s, asked_s + self.patience.draw(0, most_s)))
