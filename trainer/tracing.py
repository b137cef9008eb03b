"""The run's part of its jobs' traces: spans to the collector that the manifest names. Without one, nothing is imported.

Ray brings OpenTelemetry's API and SDK; the exporter is in the image or it is not, and training goes on either way.
"""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lorafleet.contract.run_manifest import RunManifest

FLUSH_WITHIN_S = 3.0

log = logging.getLogger("lorafleet.transport.tracing")


@dataclass(frozen=True)
class TraceTo:
    """Where the spans of a run go, and the traces that they continue: W3C trace parents of its jobs, in the order of the pack."""

    endpoint: str = ""
    trace_parents: tuple[str, ...] = ()
    run: str = ""

    @classmethod
    def of(cls, manifest: RunManifest) -> "TraceTo":
        return cls(manifest.otlp_endpoint, manifest.trace_parents, manifest.run)


_provider: Any = None
_trace_to = TraceTo()


@contextmanager
def tracing(trace_to: TraceTo) -> Generator[None]:
    """Inside, `span` writes for this run. Sends what is left at the end, for a few seconds at most."""
    global _provider, _trace_to
    _trace_to = trace_to
    if trace_to.endpoint and _provider is None:
        _provider = _connected(trace_to.endpoint)
    try:
        yield
    finally:
        if _provider is not None:
            _provider.force_flush(int(FLUSH_WITHIN_S * 1000))
        _trace_to = TraceTo()


@contextmanager
def span(name: str, *, since: float | None = None, **attributes: str | int) -> Generator[None]:
    """A stretch of the run's work. `since` (Unix time) is when it began, where that was elsewhere."""
    if _provider is None or not _trace_to.endpoint:
        yield
        return
    from opentelemetry.trace import Link, get_current_span

    parents = [_context(parent) for parent in _trace_to.trace_parents if parent] or [None]
    links = [Link(get_current_span(context).get_span_context()) for context in parents[1:]]
    begun = _provider.get_tracer("lorafleet.trainer").start_span(
        name,
        context=parents[0],
        links=links,
        attributes={"run": _trace_to.run, **attributes},
        start_time=None if since is None else int(since * 1e9),
    )
    try:
        yield
    except BaseException as error:
        from opentelemetry.trace import Status, StatusCode

        begun.set_status(Status(StatusCode.ERROR, getattr(error, "reason", type(error).__name__)))
        raise
    finally:
        begun.end(time.time_ns())


def _connected(endpoint: str) -> Any:
    """None where the image has no exporter."""
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("this run is not traced: %s is missing; install opentelemetry-exporter-otlp-proto-grpc in the image", error.name)
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": "lorafleet-trainer"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))))
    return provider


def _context(trace_parent: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace_parent}, Context())
