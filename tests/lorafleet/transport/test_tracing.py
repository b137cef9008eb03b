"""The client hands its caller's trace on, and loads nothing for that."""

import subprocess
import sys

from opentelemetry.sdk.trace import TracerProvider

from lorafleet.transport.tracing import trace_headers


def test_inside_a_span_the_calls_carry_it():
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        context = span.get_span_context()
        assert trace_headers() == (("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"),)


def test_outside_of_one_they_carry_nothing():
    assert trace_headers() == ()


def test_a_program_without_opentelemetry_loads_none():
    program = "import sys, lorafleet.client, lorafleet.transport.tracing as t; print(t.trace_headers(), 'opentelemetry' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "() False"
