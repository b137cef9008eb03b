"""Records numbers and spans of this process. Like logging: any module records, one place decides what receives them.

Imports nothing, and costs one call while nothing receives. Permitted names are in service/observability/metrics.py; a test compares.
"""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from lorafleet.errors import LorafleetError, OperatorsFault

OPERATORS_FAULTS = "lorafleet_operators_faults_total"


class Listener(Protocol):
    """Receives numbers."""

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None: ...
    def measure(self, name: str, value: float, labels: dict[str, str]) -> None: ...
    def level(self, name: str, change: float, labels: dict[str, str]) -> None: ...


class Span(Protocol):
    """A span of work in a trace."""

    @property
    def trace_parent(self) -> str:
        """The W3C trace context, to continue the trace elsewhere; empty when tracing is off."""
        ...

    def note(self, **attributes: str | int | float) -> None:
        """Adds attributes known only now."""
        ...

    def drop(self) -> None:
        """Drops the span: nothing of interest happened in it."""
        ...


class Tracer(Protocol):
    """Receives spans."""

    def span(self, name: str, parent: str, links: tuple[str, ...], attributes: dict[str, Any]) -> AbstractContextManager[Span]: ...


class _NoSpan:
    trace_parent = ""

    def note(self, **attributes: str | int | float) -> None:
        pass

    def drop(self) -> None:
        pass


_NO_SPAN = _NoSpan()
_listener: Listener | None = None
_tracer: Tracer | None = None

# The trace that a call came with, or was given: jobs that it creates keep it. See service.api.interceptors.observing.
calls_trace_parent: ContextVar[str] = ContextVar("calls_trace_parent", default="")


def listen(listener: Listener | None) -> None:
    """Sets the receiver of all numbers; None: none."""
    global _listener
    _listener = listener


def trace_with(tracer: Tracer | None) -> None:
    """Sets the receiver of all spans; None: none."""
    global _tracer
    _tracer = tracer


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Counts `amount` occurrences."""
    if _listener is not None:
        _listener.count(name, amount, labels)


def measure(name: str, value: float, **labels: str) -> None:
    """Records a value, such as a duration."""
    if _listener is not None:
        _listener.measure(name, value, labels)


def level(name: str, change: float, **labels: str) -> None:
    """Changes a level by `change`."""
    if _listener is not None:
        _listener.level(name, change, labels)


@contextmanager
def span(name: str, *, parent: str = "", links: tuple[str, ...] = (), **attributes: Any) -> Generator[Span]:
    """A span: a child of the current one, or of `parent`, a W3C trace parent."""
    if _tracer is None:
        yield _NO_SPAN
        return
    with _tracer.span(name, parent, links, attributes) as begun:
        yield begun


@contextmanager
def counting_operators_faults(where: str) -> Generator[None]:
    """Counts what only the operators can mend. `where` is "store", "database" or "run"."""
    try:
        yield
    except OperatorsFault as error:
        count(OPERATORS_FAULTS, where=where, reason=error.reason)
        raise


@asynccontextmanager
async def db_transaction(kind: str) -> AsyncGenerator[None]:
    """A database transaction, including the wait before it, until its commit. `kind` is "read" or "write"."""
    began = time.monotonic()
    try:
        yield
    except LorafleetError as error:
        if error.retryable:
            count("lorafleet_db_errors_total", reason=error.reason)
        raise
    finally:
        measure("lorafleet_db_transaction_seconds", time.monotonic() - began, kind=kind)


@contextmanager
def outside_call(kind: str, call: str, **attributes: Any) -> Generator[None]:
    """A call to an outside system: counted by its outcome, timed, and a span. `kind` is "store" or "backend"."""
    began = time.monotonic()
    outcome = "ok"
    with span(f"{kind} {call}", **attributes):
        try:
            yield
        except GeneratorExit:  # the reader of a stream stopped early
            raise
        except BaseException as error:
            outcome = error.reason if isinstance(error, LorafleetError) else type(error).__name__
            raise
        finally:
            count(f"lorafleet_{kind}_calls_total", call=call, outcome=outcome)
            measure(f"lorafleet_{kind}_call_seconds", time.monotonic() - began, call=call)
