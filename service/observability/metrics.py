"""Declares this service's metrics, in one table, and hands them to Prometheus. Names end in their unit.

The registry is our own: what a library registers by itself does not appear. Labels are bounded: a tenant beyond the first
MAX_TENANTS is told as "other".
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import func, select

from lorafleet import __version__
from service.control.lifecycle import FINISHED, JobState
from service.control.runs import RunState
from service.db.database import Database
from service.db.models import JobRow, RunRow
from service.observability.health import OK, Pulse, Readiness
from service.observability.probes import Page

MAX_TENANTS = 100
FRESH_S = 5.0  # minimum interval between counts in the database, however often it is scraped
OTHER = "other"

Kind = Literal["counter", "gauge", "histogram"]
_CALLS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WAITS_S = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


@dataclass(frozen=True)
class Metric:
    """One metric as /metrics shows it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _CALLS_S


METRICS = (
    Metric("lorafleet_build_info", "gauge", "1, with the version as its label.", ("version",)),
    Metric("lorafleet_ready", "gauge", "1 while this part is ready for calls, else 0.", ("part",)),
    # The queue. The same on every replica: take the maximum, not the sum.
    Metric("lorafleet_jobs", "gauge", "Unfinished jobs, from the database.", ("state", "tenant")),
    Metric("lorafleet_oldest_queued_seconds", "gauge", "Age of the job queued longest; 0 when the queue is empty."),
    Metric("lorafleet_runs", "gauge", "Runs not yet gone, from the database.", ("state",)),
    Metric("lorafleet_standby_groups", "gauge", "Groups of workers that stand by for a first run, from the database.", ("state",)),
    Metric("lorafleet_job_moves_total", "counter", "Transitions of jobs into a state.", ("state",)),
    Metric("lorafleet_job_admission_seconds", "histogram", "From acceptance to the first admission.", (), _WAITS_S),
    Metric("lorafleet_job_first_step_seconds", "histogram", "From acceptance to the first training step.", (), _WAITS_S),
    # Loops.
    Metric(
        "lorafleet_loop_lag_seconds", "gauge", "Duration so far of the loop's current step, or how long its next one is overdue.", ("loop",)
    ),
    Metric("lorafleet_loop_step_seconds", "histogram", "Duration of a step.", ("loop",)),
    Metric("lorafleet_loop_errors_total", "counter", "Steps that failed and will be retried.", ("loop", "reason")),
    Metric("lorafleet_row_errors_total", "counter", "Rows that a loop went on past because of an error of their own.", ("loop", "reason")),
    Metric("lorafleet_event_loop_lag_seconds", "histogram", "Delay of the event loop in waking from a short sleep."),
    # Calls.
    Metric("lorafleet_rpcs_total", "counter", "Completed RPCs.", ("method", "code")),
    Metric("lorafleet_rpc_seconds", "histogram", "Duration of unary RPCs.", ("method",)),
    Metric("lorafleet_rpcs_in_flight", "gauge", "RPCs in progress, including streams.", ("method",)),
    Metric("lorafleet_rpc_errors_total", "counter", "Refused or failed RPCs, by the reason returned to the caller.", ("reason",)),
    Metric("lorafleet_auth_failures_total", "counter", "Calls that failed authentication.", ("reason",)),
    Metric("lorafleet_rate_limited_total", "counter", "Calls refused because of a limit.", ("reason",)),
    Metric("lorafleet_watchers", "gauge", "Open watches on this replica."),
    Metric("lorafleet_report_lag_seconds", "histogram", "From an event in a run until it is recorded.", (), _WAITS_S),
    # Dependencies.
    Metric(
        "lorafleet_operators_faults_total", "counter", "Faults that the operators must mend; work waits until then.", ("where", "reason")
    ),
    Metric("lorafleet_db_transaction_seconds", "histogram", "Duration of database transactions, including waits.", ("kind",)),
    Metric("lorafleet_db_errors_total", "counter", "Failed database transactions.", ("reason",)),
    Metric("lorafleet_clock_steps_total", "counter", "Times that the clock was set and what goes on was carried over."),
    Metric("lorafleet_db_retries_total", "counter", "Calls and steps repeated because of a conflicting transaction.", ("reason",)),
    Metric("lorafleet_events_appended_total", "counter", "Events appended to the log that watches read."),
    Metric("lorafleet_events_compacted_total", "counter", "Events deleted from the log by age."),
    Metric("lorafleet_store_calls_total", "counter", "Calls to the store.", ("call", "outcome")),
    Metric("lorafleet_store_call_seconds", "histogram", "Duration of calls to the store.", ("call",)),
    Metric("lorafleet_backend_calls_total", "counter", "Calls to the backend where runs execute.", ("call", "outcome")),
    Metric("lorafleet_kubernetes_requests_total", "counter", "Requests to the Kubernetes API server.", ("verb", "resource", "code")),
    Metric("lorafleet_kubernetes_request_seconds", "histogram", "Duration of those requests, except watches.", ("verb",)),
    Metric("lorafleet_backend_call_seconds", "histogram", "Duration of calls to the backend.", ("call",)),
)


class MetricsCollector:
    """Collects what `service.core.telemetry` records, and renders it for Prometheus."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            more: dict[str, Any] = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
            self._metrics[metric.name] = kinds[metric.kind](metric.name, metric.help, metric.labels, registry=self.registry, **more)
        self._children: dict[tuple[str, ...], Any] = {}
        self.set("lorafleet_build_info", 1, version=__version__)

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        self._child(name, labels).inc(amount)

    def measure(self, name: str, value: float, labels: dict[str, str]) -> None:
        self._child(name, labels).observe(value)

    def level(self, name: str, change: float, labels: dict[str, str]) -> None:
        self._child(name, labels).inc(change)

    def set(self, name: str, value: float, **labels: str) -> None:
        self._child(name, labels).set(value)

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Set all of a gauge's values; labels not among them are removed."""
        metric = self._metrics[name]
        metric.clear()
        for labels, value in values.items():
            metric.labels(*labels).set(value)

    def text(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def _child(self, name: str, labels: Mapping[str, str]) -> Any:
        key = (name, *labels.values())  # told from few places, each with its labels in one order
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(**labels) if labels else metric
        return child


def metrics_page(metrics: MetricsCollector, db: Database, pulse: Pulse, readiness: Readiness) -> Callable[[], Awaitable[Page]]:
    """What /metrics answers. A database that is away leaves its numbers out, and shows as not ready."""
    counted_at = -FRESH_S

    async def page() -> Page:
        nonlocal counted_at
        health = await readiness.health()
        metrics.replace("lorafleet_ready", {(part,): float(state == OK) for part, state in {**health.parts, **health.notes}.items()})
        metrics.replace("lorafleet_loop_lag_seconds", {(loop,): late_s for loop, late_s in pulse.late_s().items()})
        if time.monotonic() - counted_at >= FRESH_S and health.parts.get("database", OK) == OK:
            await _count(metrics, db)
            counted_at = time.monotonic()
        return Page(200, "text/plain; version=0.0.4; charset=utf-8", metrics.text())

    return page


async def _count(metrics: MetricsCollector, db: Database) -> None:
    unfinished = [state.value for state in JobState if state not in FINISHED]
    by_state = select(JobRow.state, JobRow.tenant, func.count()).where(JobRow.state.in_(unfinished)).group_by(JobRow.state, JobRow.tenant)
    oldest = select(func.min(JobRow.create_time)).where(JobRow.state == JobState.QUEUED.value)
    is_live, stands_by = RunRow.state != RunState.GONE.value, RunRow.standby.is_not(None)
    live = select(RunRow.state, func.count()).where(is_live, ~stands_by).group_by(RunRow.state)
    standby = select(RunRow.state, func.count()).where(is_live, stands_by).group_by(RunRow.state)
    async with db.snapshot() as tx:
        jobs = [(state, tenant, count) for state, tenant, count in await tx.session.execute(by_state)]
        queued_since = await tx.session.scalar(oldest)
        runs = {(state,): float(count) for state, count in await tx.session.execute(live)}
        standing_by = {state: float(count) for state, count in await tx.session.execute(standby)}
        age_s = 0.0 if queued_since is None else (tx.now - queued_since).total_seconds()
    metrics.replace("lorafleet_jobs", dict(_capped(jobs)))
    metrics.replace("lorafleet_runs", runs)
    num_ready = standing_by.pop(RunState.IDLE.value, 0.0)
    metrics.replace("lorafleet_standby_groups", {("ready",): num_ready, ("starting",): sum(standing_by.values())})
    metrics.set("lorafleet_oldest_queued_seconds", max(0.0, age_s))


def _capped(jobs: Sequence[tuple[str, str, int]]) -> Iterator[tuple[tuple[str, str], float]]:
    """The tenants with the most jobs by name, all others as one."""
    by_tenant: dict[str, int] = {}
    for _, tenant, count in jobs:
        by_tenant[tenant] = by_tenant.get(tenant, 0) + count
    named = set(sorted(by_tenant, key=lambda tenant: (-by_tenant[tenant], tenant))[:MAX_TENANTS])
    sums: dict[tuple[str, str], float] = {}
    for state, tenant, count in jobs:
        key = (state, tenant if tenant in named else OTHER)
        sums[key] = sums.get(key, 0.0) + count
    yield from sums.items()
