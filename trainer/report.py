"""How a run tells the control plane what happens, and hears what it must do. A thread; training never waits for it.

While the control plane is away events are kept, newest progress only, and delivered after it. A run that another
has replaced hears STALE_ATTEMPT and must stop itself.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from lorafleet.contract.run_manifest import RUN_TOKEN_ENV, RunManifest, Style
from lorafleet.credentials import Credentials
from lorafleet.errors import RunFailed
from lorafleet.spec_violations import told
from lorafleet.transport.channel import DIRECT, open_channel
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1.training_service_pb2 import Artifact, Progress
from trainer import run_log

log = logging.getLogger("lorafleet.report")

CALL_TIMEOUT_S = 10.0
DELIVERY_TIMEOUT_S = 600.0  # how long a finished run waits for a control plane that is away
SAY_UNHEARD_EVERY_S = 60.0
AWAY_TOO_LONG_S = 900.0
_MOST_EVENTS_A_CALL = 200
_MAX_MESSAGE_CHARS = 4000


class StaleAttempt(Exception):
    """Another attempt has taken this run's place: stop, write nothing."""


@dataclass(frozen=True)
class Address:
    """Where and as whom to report. `token` is a secret: never printed, never stored."""

    run: str
    host_port: str
    token: str
    tls: bool = False
    tls_ca: str | None = None  # PEM; unset: whom this machine trusts
    interval_s: float = 2.0

    def __repr__(self) -> str:
        return f"Address({self.run!r}, {self.host_port!r})"

    @classmethod
    def of(cls, manifest: RunManifest, token_file: str | None, *, token: str = "") -> "Address":
        """The token is the one given, or the file's, or else the environment's."""
        token = token or (Path(token_file).read_text().strip() if token_file else os.environ.get(RUN_TOKEN_ENV, ""))
        tls, tls_ca = manifest.report_tls, manifest.report_tls_ca
        return cls(manifest.run, manifest.report_address, token, tls, tls_ca, manifest.heartbeat_interval_s)


@dataclass(frozen=True)
class NextRun:
    """Another run for warm workers. `token` is a secret."""

    run: str
    manifest_uri: str
    token: str = field(repr=False)


class Reporter:
    """Sends heartbeats with buffered events from its own thread. Use as a context manager."""

    def __init__(self, address: Address, source: str, on_stale: Callable[[], None] = lambda: None) -> None:
        """`on_stale` is called from the reporter's thread once another attempt has taken the run's place."""
        self._address = address
        self._token = address.token  # a newer one comes in time with the answers
        self._on_stale = on_stale
        self._source = f"{source}-{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._pending: list[pb.RunEvent] = []
        self._in_flight = 0  # highest sequence in a call that is under way
        self._sequence = 0
        self._progress: dict[str, Progress] = {}
        self._stops: set[str] = set()
        self._stale = threading.Event()
        self._delivered = threading.Condition(self._lock)
        self._idle = False
        self._heard_s = 0.0  # when a report was answered last, monotonic
        self._next: NextRun | None = None
        self._answered = threading.Event()  # an idle run has heard what comes next
        self._joining: dict[str, Style] = {}
        self._unreadable: set[str] = set()  # joiners whose spec this trainer does not understand
        self._unheard_since: float | None = None
        self._say_unheard_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)

    def __enter__(self) -> "Reporter":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close(timeout_s=5.0)

    @property
    def address(self) -> Address:
        """With the newest token, for the next reporter of the run."""
        return replace(self._address, token=self._token)

    def progress(self, job: str, **changes: object) -> None:
        """Merges changes into the job's progress; a change of phase is sent at once."""
        with self._lock:
            newest = Progress()
            newest.CopyFrom(self._progress.get(job, Progress()))
            for name, value in changes.items():
                setattr(newest, name, value)
            self._pending = [
                event
                for event in self._pending
                if not (event.job == job and event.HasField("progress") and event.sequence > self._in_flight)
            ]
            self._append(job, pb.RunEvent(progress=newest))
            urgent = newest.phase != self._progress.get(job, Progress()).phase
            self._progress[job] = newest
        if urgent:
            self._wake.set()

    def resumed(self, job: str, step: int) -> None:
        with self._lock:
            self._append(job, pb.RunEvent(resumed=pb.Resumed(step=step)))
        self._wake.set()

    def succeeded(self, job: str, step: int, artifact: Artifact) -> None:
        self._ended(job, pb.StyleEnded(outcome=pb.STYLE_OUTCOME_SUCCEEDED, step=step, artifact=artifact))

    def stopped(self, job: str, step: int) -> None:
        self._ended(job, pb.StyleEnded(outcome=pb.STYLE_OUTCOME_STOPPED, step=step))

    def failed(self, job: str, error: RunFailed, step: int = 0) -> None:
        message = run_log.plain(error.message, _MAX_MESSAGE_CHARS)  # half characters, for one, cannot be sent
        ended = pb.StyleEnded(outcome=pb.STYLE_OUTCOME_FAILED, reason=error.reason, message=message, retryable=error.retryable, step=step)
        self._ended(job, ended)

    def must_stop(self, job: str) -> bool:
        """Whether the job was asked to stop. Raises StaleAttempt when the whole run was replaced."""
        if self._stale.is_set():
            raise StaleAttempt(self._address.run)
        return job in self._stops or "" in self._stops

    def joining(self) -> list[Style]:
        """Styles that were sent to join this pack and were not asked for before."""
        with self._lock:
            return [style for style in self._joining.values() if style.job not in self._progress]

    def flush(self, *, timeout_s: float = DELIVERY_TIMEOUT_S) -> bool:
        """Waits until everything so far is delivered. False when it is not by then."""
        self._wake.set()
        with self._delivered:
            return self._delivered.wait_for(lambda: not self._pending or self._stale.is_set(), timeout_s) and not self._pending

    def wait_for_next(self, idle_s: float) -> NextRun | None:
        """Reports that the workers are idle and waits for another run. None: asked to end, nothing came within `idle_s`, or
        the control plane was away for `AWAY_TOO_LONG_S`: nobody may ever come back for workers that wait without an end."""
        self._idle = True
        self._wake.set()
        began_s = self._heard_s = time.monotonic()
        while (left_s := min(began_s + idle_s, self._heard_s + AWAY_TOO_LONG_S) - time.monotonic()) > 0:
            if self._answered.wait(left_s):
                break
        self._idle = False
        return self._next

    def close(self, *, timeout_s: float = DELIVERY_TIMEOUT_S) -> bool:
        """Waits until everything is delivered. False when it is not by then."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._pending

    def _ended(self, job: str, ended: pb.StyleEnded) -> None:
        with self._lock:
            self._append(job, pb.RunEvent(ended=ended))
        self._wake.set()

    def _append(self, job: str, event: pb.RunEvent) -> None:
        self._sequence += 1
        event.sequence, event.job = self._sequence, job
        event.time.CopyFrom(_now())
        self._pending.append(event)

    def _loop(self) -> None:
        with _channel(self._address) as channel:
            report = cast(Any, rpc.ReportServiceStub(channel)).Report
            while not self._stale.is_set():
                try:
                    interval_s = self._send(report)
                except Exception:  # without this thread the run would train on unheard, until it is taken for dead
                    log.exception("a report failed; the next one is sent all the same")
                    interval_s = self._address.interval_s
                with self._delivered:
                    self._delivered.notify_all()
                if self._closing.is_set() and not self._pending:
                    return
                # Awake for what is urgent, but never more often than four times a second.
                self._wake.wait(interval_s)
                self._wake.clear()
                time.sleep(0.25)

    def _send(self, report: Callable[..., pb.ReportResponse]) -> float:
        with self._lock:
            events = self._pending[:_MOST_EVENTS_A_CALL]
            self._in_flight = events[-1].sequence if events else 0
        request = pb.ReportRequest(run=self._address.run, source=self._source, events=events, idle=self._idle)
        try:
            response = report(request, timeout=CALL_TIMEOUT_S, metadata=[("authorization", f"Bearer {self._token}")])
        except grpc.RpcError as error:
            if error.code() in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED}:  # pyright: ignore
                self._stale.set()
                self._answered.set()
                self._on_stale()
            self._say_unheard(error)
            return self._address.interval_s
        finally:
            self._in_flight = 0
        self._say_heard()
        self._heard_s = time.monotonic()
        self._token = response.token or self._token
        with self._lock:
            self._pending = [event for event in self._pending if event.sequence > response.acked_sequence]
            self._stops |= {each.job for each in response.directives if each.action == pb.DIRECTIVE_ACTION_STOP}
        self._hear_joining(response.joining)
        self._hear_next(response)
        return response.next_report_s or self._address.interval_s

    def _say_unheard(self, error: grpc.RpcError) -> None:
        """The first report that fails is logged, and one a minute while they do."""
        self._unheard_since = self._unheard_since or time.monotonic()
        if time.monotonic() >= self._say_unheard_at:
            self._say_unheard_at = time.monotonic() + SAY_UNHEARD_EVERY_S
            code, details = error.code().name, error.details()  # pyright: ignore
            log.warning("a report to %s failed; it is sent again: %s: %s", self._address.host_port, code, details)

    def _say_heard(self) -> None:
        if self._unheard_since is not None:
            log.info("the control plane answers again, after %.0f s", time.monotonic() - self._unheard_since)
            self._unheard_since, self._say_unheard_at = None, 0.0

    def _hear_joining(self, joining: Iterable[pb.JoiningStyle]) -> None:
        for each in joining:
            try:
                style = Style.model_validate_json(each.style_json)
            except (ValueError, RecursionError) as error:
                self._refuse(each.job, error)
            else:
                with self._lock:
                    self._joining[each.job] = style

    def _refuse(self, job: str, error: Exception) -> None:
        """Once: the control plane sends a joiner until it has heard of it."""
        if job not in self._unreadable:
            self._unreadable.add(job)
            self.failed(job, not_understood(error))

    def _hear_next(self, response: pb.ReportResponse) -> None:
        if response.next_run.run and self._next is None:
            self._next = NextRun(response.next_run.run, response.next_run.manifest_uri, response.next_run.token)
        released = any(each.action == pb.DIRECTIVE_ACTION_RELEASE for each in response.directives)
        if self._next is not None or released:
            self._answered.set()


def not_understood(error: Exception) -> RunFailed:
    """A style's spec as the control plane wrote it, which this trainer cannot read. What pydantic says quotes it."""
    what = told(error) if isinstance(error, ValidationError) else f"it cannot be parsed ({type(error).__name__})"
    return RunFailed(f"this trainer does not understand the spec: {what}; is it older than the control plane?", reason="INVALID_SPEC")


def report_failed(address: Address, jobs: Sequence[str], error: RunFailed) -> bool:
    """Of every job of the run that has not ended; whether it was heard."""
    with Reporter(address, source="driver") as reporter:
        for job in jobs:
            with run_log.about(job):
                log.error("%s", error)
            reporter.failed(job, error)
        return reporter.close()


def _channel(address: Address) -> grpc.Channel:
    # A control plane that was away for minutes must be found again within seconds. The run's token goes with each call: without
    # TLS no proxy may see it.
    options = [("grpc.max_reconnect_backoff_ms", 3000), ("grpc.initial_reconnect_backoff_ms", 200), *(() if address.tls else DIRECT)]
    return open_channel(address.host_port, Credentials(tls=address.tls, tls_ca_pem=address.tls_ca if address.tls else None), options)


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
