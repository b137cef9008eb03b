"""Polling with a deadline that says what was waited for, and how it stood last."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], within_s: float, what: str, shown: Callable[[], object] = lambda: "", *, every_s: float = 0.5) -> T:
    """The first truthy answer of `look`. Raises AssertionError, with what `shown` says then."""
    deadline = time.monotonic() + within_s
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:.0f} s: {what}. {shown()}")
        time.sleep(every_s)
