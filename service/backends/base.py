"""Defines what a backend is: a place where runs execute. Each call is idempotent; names derive from the run id."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lorafleet.spec import ClusterSpec
from service.control.attempts import Gone
from service.control.capacity import Hardware


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to launch."""

    run_id: str
    instance: str  # the service's own: others may launch on the same backend
    manifest_uri: str
    token: str = field(repr=False)  # with which it reports; must not be shown anywhere
    # AWS_* variables of its tenant's own store credentials, as secret as the token; empty: the place's own.
    store_env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    # Of the manifest's bucket, where that is not in the usual region.
    bucket_regions: Mapping[str, str] = field(default_factory=dict[str, str])
    tenant: str = ""  # whose jobs it runs; empty: several tenants'
    cluster: ClusterSpec = field(default_factory=ClusterSpec)  # the workers that it asks for
    priority_class: str = "normal"  # low, normal, high: the highest of its jobs


@dataclass(frozen=True, kw_only=True)
class RunRef:
    """A run as known to a backend. `handle` is what `launch` returned; None if the response was lost."""

    run_id: str
    handle: str | None


SUSPENDED = "SUSPENDED"  # the run is held back by an external queue


@dataclass(frozen=True, kw_only=True)
class Alive:
    """The backend has the run, waiting or executing.

    `waiting` is a stable reason, UPPER_SNAKE, while it cannot begin, and `message` says it to people. `leaving` says that
    the place where it executes is about to go: it should save its work and end. `is_bounded`: whoever lets it wait ends that
    himself when it takes too long, so that the wait is no silence of the run's.
    """

    waiting: str = ""
    message: str = ""
    leaving: str = ""
    is_bounded: bool = False


Observation = Alive | Gone


class Backend(Protocol):
    """Every call raises lorafleet.errors.Unavailable when the backend cannot tell; nothing is concluded from that."""

    async def launch(self, run: RunRequest) -> str:
        """Starts the run unless it was started before; returns its handle either way."""
        ...

    async def observe(self, run: RunRef) -> Observation:
        """Whether the run exists. Gone is final."""
        ...

    async def stop(self, run: RunRef) -> None:
        """Requests the hard stop of the run; observe its absence. No effect once it is gone."""
        ...

    async def runs(self, instance: str) -> Sequence[RunRef]:
        """The live runs that were launched for that instance of the service."""
        ...

    def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        """What the run has written so far from byte `start` on, in pieces; none when there is nothing, or nothing any more.

        Close it when you have read enough (`contextlib.aclosing`). Holds a piece at a time, however long the log is.
        """
        ...

    async def forget(self, run: RunRef) -> None:
        """The run is gone and its log copied: deletes what the backend still keeps of it. No effect while it is alive."""
        ...

    def hardware(self) -> Hardware | None:
        """All that runs can ever have here; None: not known yet, or it may grow."""
        ...

    async def ping(self) -> None:
        """Raises Unavailable while the backend does not answer; its reason RAY_STARTING says that it is about to."""
        ...

    async def close(self) -> None:
        """Ends what this backend has started for this process."""
        ...
