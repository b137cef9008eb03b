"""Sends spans to an OpenTelemetry collector, over OTLP. Imported only where `--otlp-endpoint` is set: it takes half a second."""

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import grpc.aio
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lorafleet import __version__
from lorafleet.errors import LorafleetError

FLUSH_WITHIN_S = 3.0

_PROPAGATOR = TraceContextTextMapPropagator()


class OtlpTracer:
    """Takes the spans of `service.core.telemetry` in."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("lorafleet", __version__)
        # Not OpenTelemetry's own: a stream that is given up is ended from another context, where that one cannot be put back.
        self._current: ContextVar[_Begun | None] = ContextVar("span", default=None)

    @classmethod
    def to(cls, endpoint: str) -> "OtlpTracer":
        """Sends to a collector: http://host:4317 in plaintext, https:// with TLS."""
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        resource = {"service.name": "lorafleet", "service.version": __version__, "service.instance.id": uuid4().hex}
        provider = TracerProvider(resource=Resource.create(resource))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))))
        return cls(provider)

    @contextmanager
    def span(self, name: str, parent: str, links: tuple[str, ...], attributes: dict[str, Any]) -> Generator["_Begun"]:
        around = self._current.get()
        context = _context(parent) if parent else Context() if around is None else trace.set_span_in_context(around.span, Context())
        linked = [Link(trace.get_current_span(_context(link)).get_span_context()) for link in links]
        begun = _Begun(self._tracer.start_span(name, context=context, links=linked, attributes=attributes), around)
        token = self._current.set(begun)
        try:
            yield begun
        except BaseException as error:
            begun.failed(error)
            raise
        finally:
            begun.end()
            with suppress(ValueError):  # ended from another context, which has no such span
                self._current.reset(token)

    def close(self) -> None:
        """Sends what is left, for a few seconds. Blocks."""
        self._provider.force_flush(int(FLUSH_WITHIN_S * 1000))
        self._provider.shutdown()


class _Begun:
    """A span under way."""

    def __init__(self, span: trace.Span, around: "_Begun | None") -> None:
        self.span = span
        self._around = around
        self._is_dropped = False
        self._has_children = False

    @property
    def trace_parent(self) -> str:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(self.span, Context()))
        return carrier.get("traceparent", "")

    def note(self, **attributes: str | int | float) -> None:
        self.span.set_attributes(attributes)

    def drop(self) -> None:
        self._is_dropped = True

    def failed(self, error: BaseException) -> None:
        """Its reason alone: messages may name what a collector need not know."""
        if isinstance(error, grpc.aio.AbortError | GeneratorExit):
            return  # the code is noted; that a caller was refused is no failure of ours
        reason = error.reason if isinstance(error, LorafleetError) else type(error).__name__
        self.span.set_status(Status(StatusCode.ERROR, reason))

    def end(self) -> None:
        """A dropped span is never ended, and so never sent, unless a child of it was."""
        if self._is_dropped and not self._has_children:
            return
        if self._around is not None:
            self._around._has_children = True
        self.span.end(time.time_ns())


def _context(trace_parent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": trace_parent}, Context())
