"""What the wire shows of each kind of work (`lorafleet.work`): one file for a kind, `NAME.py` with a `WIRE`, found by its name."""

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from service.db.attempts import JobRun
from service.db.models import JobRow


class Wire(Protocol):
    """A kind's messages. Generated classes have no common type that says enough: hence Any."""

    def message(self, row: JobRow, runs: Sequence[JobRun], *, with_spec: bool = True) -> Any:
        """The work as users see it. Events are kept without the spec, which never changes."""
        ...

    def read(self, payload: bytes) -> Any:
        """The message of an event."""
        ...

    def add_spec(self, message: Any, row: JobRow) -> None:
        """Fills in what was asked for; nothing of a spec that this server cannot read."""
        ...

    def watched(self, message: Any | None, resume_token: str, *, snapshot: bool = False) -> Any:
        """The answer of its Watch call; without a message a heartbeat."""
        ...


@cache
def of(kind: str) -> Wire:
    """The messages of that kind. Raises ModuleNotFoundError for one that there is not."""
    found: Wire = importlib.import_module(f"service.jobs.kinds.{kind}").WIRE
    return found
