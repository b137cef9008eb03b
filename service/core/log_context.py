"""Binds which run, job and call a line of the log is about, where it is known; service.observability.log_lines adds it to every line."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_bound: ContextVar[Mapping[str, str]] = ContextVar("log_context", default={})  # noqa: B039 (never changed, only replaced)


@contextmanager
def scope(**facts: str) -> Generator[None]:
    """What is bound inside, here and deeper, holds until the end of the block."""
    token = _bound.set({**_bound.get(), **_told(facts)})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(**facts: str) -> None:
    """From now on lines are about this too, until the scope around ends."""
    _bound.set({**_bound.get(), **_told(facts)})


def bound() -> Mapping[str, str]:
    """What a line is about now."""
    return _bound.get()


def _told(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}
