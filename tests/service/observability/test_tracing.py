"""Traces: from the caller through the call and the launch to the run, and over OTLP to a collector."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lorafleet.contract.layout import run_manifest
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.api.interceptors.observing import new_trace_parent
from service.core import telemetry
from service.core.wakeups import Bell
from service.db import jobs
from service.observability.health import Pulse
from service.observability.tracing import OtlpTracer
from service.reconcile import loop
from service.settings.serve_settings import parse_otlp_endpoint
from tests.collector import collecting
from tests.service.api import batch_requests
from tests.service.api.conftest import api  # noqa: F401 (a fixture)
from tests.service.api.served import Api
from tests.service.serving import REPOSITORY, served
from tests.service.world import World

TRACE, PARENT = "ab" * 16, "cd" * 8
CALLERS = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.trace_with(OtlpTracer(provider))
    yield exporter
    telemetry.trace_with(None)


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def trace_id(span: ReadableSpan) -> str:
    return format(span.get_span_context().trace_id, "032x")


def parent_id(span: ReadableSpan) -> str:
    return format(span.parent.span_id, "016x") if span.parent else ""


async def stored(world: World, job_id: str) -> str:
    async with world.tools.db.snapshot() as tx:
        row = await jobs.by_name(tx, "acme", job_id)
        assert row is not None
        return row.trace_parent


async def test_a_call_continues_its_callers_trace_with_what_it_calls_inside(exporter: InMemorySpanExporter, api: Api):  # noqa: F811
    await api.jobs.CreateTrainingJob(api.request(training_job_id="a"), metadata=CALLERS)
    [call] = named(exporter, "TrainingService/CreateTrainingJob")
    assert (trace_id(call), parent_id(call)) == (TRACE, PARENT)
    assert call.attributes is not None
    assert call.attributes["code"] == "OK"
    inside = [span for span in exporter.get_finished_spans() if span.name.startswith("store ")]
    assert inside, "the base model and the pictures were looked for"
    assert {parent_id(span) for span in inside} == {format(call.get_span_context().span_id, "016x")}
    assert await stored(api.world, "a") == f"00-{TRACE}-{parent_id(inside[0])}-01", "what comes later continues the call"


async def test_without_a_tracer_the_callers_trace_is_kept_for_the_run(api: Api):  # noqa: F811
    await api.jobs.CreateTrainingJob(api.request(training_job_id="a"), metadata=CALLERS)
    assert await stored(api.world, "a") == CALLERS[0][1]


@pytest.mark.parametrize("sent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01" + "x" * 9, "ff-" + "a" * 60])
async def test_a_job_without_a_callers_trace_gets_one_of_its_own(api: Api, sent: str):  # noqa: F811
    await api.jobs.CreateTrainingJob(api.request(training_job_id="a"), metadata=(("traceparent", sent),))
    kept = await stored(api.world, "a")
    assert len(kept) == len(new_trace_parent())
    assert kept != sent


async def test_a_batchs_jobs_keep_the_trace_of_the_call_that_made_them(exporter: InMemorySpanExporter, api: Api):  # noqa: F811
    await batch_requests.create(api, [batch_requests.item("a"), batch_requests.item("b")])
    [call] = named(exporter, "BatchService/CreateBatch")
    assert {(await stored(api.world, job_id)).split("-")[1] for job_id in ("a", "b")} == {trace_id(call)}


async def test_the_launch_continues_the_jobs_trace_and_hands_it_to_the_run(exporter: InMemorySpanExporter, api: Api):  # noqa: F811
    world = api.world
    world.with_tools(locations=replace(world.tools.locations, otlp_endpoint="http://collector:4317"))
    await api.jobs.CreateTrainingJob(api.request(training_job_id="a"), metadata=CALLERS)
    await world.settle()
    [launch] = named(exporter, "launch run")
    assert trace_id(launch) == TRACE
    manifest = RunManifest.model_validate_json(await _manifest(world))
    assert manifest.otlp_endpoint == "http://collector:4317"
    assert [parent.split("-")[1] for parent in manifest.trace_parents] == [TRACE]
    [backend] = [span for span in exporter.get_finished_spans() if span.name == "store put" and trace_id(span) == TRACE][-1:]
    assert parent_id(backend) == format(launch.get_span_context().span_id, "016x")


async def test_a_manifest_without_a_collector_has_no_field_of_it(world: World):
    await world.started("a")
    assert not {"otlp_endpoint", "trace_parents"} & set(json.loads(await _manifest(world)))


async def _manifest(world: World) -> bytes:
    manifest = await world.tools.store.get(run_manifest(world.tools.locations.artifacts_uri, world.backend.launches[-1]))
    assert manifest is not None
    return manifest


async def test_a_refused_call_is_no_error_of_ours_and_its_code_is_noted(exporter: InMemorySpanExporter, api: Api):  # noqa: F811
    with pytest.raises(grpc.aio.AioRpcError):
        await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/acme/jobs/none"))
    [call] = named(exporter, "TrainingService/GetTrainingJob")
    assert call.status.is_unset
    assert call.attributes is not None
    assert call.attributes["code"] == "NOT_FOUND"


async def test_steps_that_found_no_work_are_no_spans(exporter: InMemorySpanExporter):
    stopping, answers = asyncio.Event(), [True, False]

    async def step() -> bool:
        if len(answers) == 1:
            stopping.set()
        return answers.pop(0)

    await loop.run(loop.Loop(name="test", step=step), Bell(), stopping, Pulse())
    assert len(named(exporter, "loop test")) == 1


def test_over_otlp_from_the_client_through_the_server_to_the_run(tmp_path: Path):
    """A server process, a client that traces and a run that is another process: one trace at the collector."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model_index.json").write_text("{}")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"png")
    with collecting() as collector:
        options = ("--ray-address", "http://127.0.0.1:1", "--otlp-endpoint", collector.endpoint)
        with served(tmp_path / "state", *options) as server, grpc.insecure_channel(server.address) as channel:
            request = pb.CreateTrainingJobRequest(parent="tenants/acme", training_job_id="a")
            spec = request.training_job.spec
            spec.base_model.uri, spec.dataset.uri = f"file://{tmp_path}/base", f"file://{tmp_path}/pictures"
            rpc.TrainingServiceStub(channel).CreateTrainingJob(request, metadata=CALLERS)
            call = collector.named("TrainingService/CreateTrainingJob")
            launch = collector.named("launch run")
        _run_of_another_process(collector.endpoint, CALLERS[0][1])
        prepared = collector.named("prepare")
    assert (call.service, call.trace_id, call.parent_id) == ("lorafleet", TRACE, PARENT)
    assert launch.trace_id == TRACE
    assert (prepared.service, prepared.trace_id, prepared.attributes["run"]) == ("lorafleet-trainer", TRACE, "run-1")


def _run_of_another_process(endpoint: str, trace_parent: str) -> None:
    program = f"""
from trainer.tracing import TraceTo, span, tracing
with tracing(TraceTo({endpoint!r}, ({trace_parent!r},), "run-1")):
    with span("prepare", num_jobs=1):
        pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=REPOSITORY)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4317", "ftp://host"])
def test_what_is_no_collector_is_refused(endpoint: str):
    with pytest.raises(InvalidInput, match="--otlp-endpoint"):
        parse_otlp_endpoint(endpoint)
