"""The metrics that this service has, in one table, and Prometheus as their listener. Names end in their unit.

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
from service.health import OK, Pulse, Readiness
from service.probes import Page

MAX_TENANTS = 100
FRESH_S = 5.0  # what is counted in the database is counted no more often, whoever scrapes
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
    Metric("lorafleet_ready", "gauge", "1 while this part is as calls need it, else 0.", ("part",)),
    # The queue. The same on every replica: take the maximum, not the sum.
    Metric("lorafleet_jobs", "gauge", "Unfinished jobs, from the database.", ("state", "tenant")),
    Metric("lorafleet_oldest_queued_seconds", "gauge", "Age of the job that has been queued longest; 0 when none is."),
    Metric("lorafleet_runs", "gauge", "Runs that are not gone, from the database.", ("state",)),
    Metric("lorafleet_job_moves_total", "counter", "Moves of jobs into a state.", ("state",)),
    Metric("lorafleet_job_admission_seconds", "histogram", "From acceptance to the first admission.", (), _WAITS_S),
    Metric("lorafleet_job_first_step_seconds", "histogram", "From acceptance to the first training step.", (), _WAITS_S),
    # Loops.
    Metric("lorafleet_loop_lag_seconds", "gauge", "How long the loop's step takes by now, or its next one is overdue.", ("loop",)),
    Metric("lorafleet_loop_step_seconds", "histogram", "Duration of a step.", ("loop",)),
    Metric("lorafleet_loop_errors_total", "counter", "Steps that failed and are tried again.", ("loop", "reason")),
    Metric("lorafleet_event_loop_lag_seconds", "histogram", "How late the event loop comes back from a short sleep."),
    # Calls.
    Metric("lorafleet_rpcs_total", "counter", "RPCs that have ended.", ("method", "code")),
    Metric("lorafleet_rpc_seconds", "histogram", "Duration of unary RPCs.", ("method",)),
    Metric("lorafleet_rpcs_in_flight", "gauge", "RPCs being answered, streams among them.", ("method",)),
    Metric("lorafleet_rpc_errors_total", "counter", "RPCs refused or failed, by the reason that the caller was told.", ("reason",)),
    Metric("lorafleet_auth_failures_total", "counter", "Calls whose caller was not known or whose token was not good.", ("reason",)),
    Metric("lorafleet_rate_limited_total", "counter", "Calls refused because a limit was reached.", ("reason",)),
    Metric("lorafleet_watchers", "gauge", "Watches that are open on this replica."),
    Metric("lorafleet_report_lag_seconds", "histogram", "From an event in a run to its taking in.", (), _WAITS_S),
    # What it stands on.
    Metric("lorafleet_db_transaction_seconds", "histogram", "Duration of database transactions, the waiting among it.", ("kind",)),
    Metric("lorafleet_db_errors_total", "counter", "Database transactions that failed.", ("reason",)),
    Metric("lorafleet_db_retries_total", "counter", "Calls and steps done again because another transaction came first.", ("reason",)),
    Metric("lorafleet_events_appended_total", "counter", "Events appended to the log that watches read."),
    Metric("lorafleet_events_compacted_total", "counter", "Events deleted from it by age."),
    Metric("lorafleet_store_calls_total", "counter", "Calls to the store.", ("call", "outcome")),
    Metric("lorafleet_store_call_seconds", "histogram", "Duration of calls to the store.", ("call",)),
    Metric("lorafleet_backend_calls_total", "counter", "Calls to the backend where runs execute.", ("call", "outcome")),
    Metric("lorafleet_kubernetes_requests_total", "counter", "Requests to the Kubernetes API server.", ("verb", "resource", "code")),
    Metric("lorafleet_kubernetes_request_seconds", "histogram", "Duration of requests to it, without watches.", ("verb",)),
    Metric("lorafleet_backend_call_seconds", "histogram", "Duration of calls to the backend.", ("call",)),
)


class Metrics:
    """Counts what `service.telemetry` tells, and writes it as Prometheus reads it."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            more = {"buckets": metric.buckets} if metric.kind == "histogram" else {}
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
        """All of a gauge's values: one that is not among them is gone."""
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


def metrics_page(metrics: Metrics, db: Database, pulse: Pulse, readiness: Readiness) -> Callable[[], Awaitable[Page]]:
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


async def _count(metrics: Metrics, db: Database) -> None:
    unfinished = [state.value for state in JobState if state not in FINISHED]
    by_state = select(JobRow.state, JobRow.tenant, func.count()).where(JobRow.state.in_(unfinished)).group_by(JobRow.state, JobRow.tenant)
    oldest = select(func.min(JobRow.create_time)).where(JobRow.state == JobState.QUEUED.value)
    live = select(RunRow.state, func.count()).where(RunRow.state != RunState.GONE.value).group_by(RunRow.state)
    async with db.snapshot() as tx:
        jobs = [(state, tenant, count) for state, tenant, count in await tx.session.execute(by_state)]
        queued_since = await tx.session.scalar(oldest)
        runs = {(state,): float(count) for state, count in await tx.session.execute(live)}
        age_s = 0.0 if queued_since is None else (tx.now - queued_since).total_seconds()
    metrics.replace("lorafleet_jobs", dict(_capped(jobs)))
    metrics.replace("lorafleet_runs", runs)
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
