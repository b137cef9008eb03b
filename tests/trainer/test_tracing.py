"""A run's spans: none without a collector, the whole way with one, and an image without exporter trains all the same."""

import subprocess
import sys
import time

import pytest

from tests.collector import collecting
from tests.service.serving import REPOSITORY
from trainer import tracing
from trainer.tracing import TraceTo, span

PARENTS = (f"00-{'ab' * 16}-{'cd' * 8}-01", f"00-{'ef' * 16}-{'cd' * 8}-01")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_provider", None)


def test_without_a_collector_nothing_is_imported():
    program = (
        "import sys; from trainer.tracing import *\nwith tracing(TraceTo()), span('train'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=REPOSITORY)
    assert ran.stdout.strip() == "[]"


def test_spans_continue_the_first_jobs_trace_and_link_the_others():
    with collecting() as collector:
        with tracing.tracing(TraceTo(collector.endpoint, PARENTS, "run-1")):
            with span("start workers", since=time.time() - 5):
                pass
            with pytest.raises(RuntimeError), span("train", num_jobs=2):
                raise RuntimeError("bug")
        assert {told.name for told in collector.spans} == {"start workers", "train"}
        told = collector.named("train")
    assert told.trace_id == "ab" * 16
    assert told.links == ("ef" * 16,)
    assert told.attributes == {"run": "run-1", "num_jobs": "2"}


def test_an_image_without_the_exporter_is_told_of_and_trains(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with tracing.tracing(TraceTo("http://127.0.0.1:1", PARENTS, "run-1")), span("train"):
        trained = True
    assert trained
    assert "not traced" in caplog.text


def test_a_collector_that_is_away_holds_nobody_up():
    began = time.monotonic()
    with tracing.tracing(TraceTo("http://127.0.0.1:1", PARENTS, "run-1")), span("train"):
        pass
    assert time.monotonic() - began < 3 * tracing.FLUSH_WITHIN_S
