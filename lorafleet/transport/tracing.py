"""Propagates the caller's trace, if it has one: OpenTelemetry is used only if the program has already loaded it."""

import sys


def is_traced() -> bool:
    """Whether this program uses OpenTelemetry."""
    return "opentelemetry.trace" in sys.modules


def trace_headers() -> tuple[tuple[str, str], ...]:
    """The W3C trace context of what the caller is in the middle of, as gRPC metadata; nothing when there is none."""
    if not is_traced():
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple((name, value) for name, value in carrier.items() if name == "traceparent")
