"""The pace of calls: deadlines, readers that do not read, sizes, compression."""

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.api import options
from service.api.errors import abort
from service.api.interceptors import flow_control
from service.api.interceptors.authentication import anybody
from service.api.interceptors.flow_control import check_deadline
from service.api.options import new_server
from service.server.serving import add_services
from service.settings.serve_settings import CallLimits
from tests.service.api.served import Api
from tests.service.world import World, progress


class Late:
    """A call whose time is over."""

    def __init__(self, left_s: float | None) -> None:
        self.left_s = left_s
        self.ended: grpc.StatusCode | None = None

    def time_remaining(self) -> float | None:
        return self.left_s

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.ended = code


@pytest.mark.parametrize(
    ("left_s", "ended"), [(None, None), (1.0, None), (0.0, grpc.StatusCode.DEADLINE_EXCEEDED), (-1.0, grpc.StatusCode.DEADLINE_EXCEEDED)]
)
async def test_a_call_is_not_begun_after_its_deadline(left_s, ended):
    context = Late(left_s)
    await check_deadline(context)
    assert context.ended is ended


async def test_a_deadline_that_passes_while_the_store_is_slow_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch):
    asked, left = asyncio.Event(), asyncio.Event()

    async def slow(uri: str) -> bool:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return False

    monkeypatch.setattr(api.world.tools.store, "is_empty", slow)
    request = api.request(training_job_id="mine", request_id="7f6ab3ac-6f6b-4a38-9b32-6f1ed6b6a2f1")
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await api.jobs.CreateTrainingJob(request, timeout=3)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(10):
        await asked.wait()
        await left.wait()  # the work under way was cancelled
    monkeypatch.undo()
    listed = await api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"))
    assert not listed.training_jobs
    assert (await api.jobs.CreateTrainingJob(request)).name == "tenants/acme/jobs/mine", "neither the id nor the request id is taken"


async def test_calls_cut_off_at_any_moment_leave_whole_jobs_or_none(api: Api):
    """Deadlines from nothing up to more than a call takes."""

    async def create(place: int) -> None:
        call = api.jobs.CreateTrainingJob(api.request(training_job_id=f"job-{place}"), timeout=0.001 * place)
        assert await call.code() in {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}

    for place in range(60):
        await create(place)
    whole = await api.jobs.CreateTrainingJob(api.request(training_job_id="last"))
    listed = (await api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=100))).training_jobs
    assert whole in listed
    watched = [event async for event in _snapshot(api)]
    assert {job.name for job in watched} == {job.name for job in listed}
    assert all(job.etag.endswith("-1") for job in listed), "each with its first event"


async def _snapshot(api: Api):
    stream = api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme"))
    async for event in stream:
        if not event.HasField("training_job"):
            break
        yield event.training_job
    stream.cancel()


async def test_a_watcher_that_does_not_read_is_cut_off_and_goes_on_with_its_last_token(world: World, monkeypatch: pytest.MonkeyPatch):
    """A real client on a socket that stops reading while changes go on."""
    cut_off = asyncio.Event()

    async def told(context, error) -> None:
        cut_off.set()
        await abort(context, error)

    monkeypatch.setattr(flow_control, "abort", told)
    server = new_server(CallLimits(slow_reader_s=0.5), anybody, world.tools.db)
    port = server.add_insecure_port("127.0.0.1:0")
    await add_services(server, world.tools, asyncio.Event())
    await server.start()
    window = [("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]  # else the client's buffer grows to megabytes
    _, run = await world.running("one", validation={"prompts": ["x" * 1900] * 60})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=window) as channel:
        jobs = rpc.TrainingServiceStub(channel)
        stream = jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme"))
        while (await stream.read()).snapshot:
            pass
        for step in range(2, 100):
            await world.report(run, progress(step))
        async with asyncio.timeout(30):
            await cut_off.wait()  # meanwhile nothing is read
            events = []
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await _read_all(stream, events)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "not read" in (ended.value.details() or "")
        changes = [event for event in events if event.HasField("training_job")]
        assert 0 < len(changes) < 98
        again = jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme", resume_token=events[-1].resume_token))
        async with asyncio.timeout(30):
            while len(changes) < 98:
                if (event := await again.read()).HasField("training_job"):
                    changes.append(event)
        assert [event.training_job.progress.step for event in changes] == list(range(2, 100)), "each once, in order"
        again.cancel()
    await server.stop(None)


async def _read_all(stream, events: list) -> None:
    while (event := await stream.read()) is not grpc.aio.EOF:
        events.append(event)


async def test_a_request_of_more_than_4_mib_is_refused(api: Api):
    request = api.request()
    request.training_job.spec.validation.prompts.extend(["x" * 2**20] * 4)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.jobs.CreateTrainingJob(request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await api.jobs.CreateTrainingJob(api.request())


async def test_compressed_requests_are_taken(api: Api):
    request = api.request()
    request.training_job.spec.validation.prompts.extend(["a fox in the snow"] * 50)
    job = await api.jobs.CreateTrainingJob(request, compression=grpc.Compression.Gzip)
    assert len(job.spec.validation.prompts) == 50


async def test_a_request_that_grows_past_the_limit_when_it_is_unpacked_is_refused(api: Api):
    request = batch_pb.GetBatchRequest(name="a" * (64 * 2**20))  # 64 KiB on the wire
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.batches.GetBatch(request, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_can_be_watched(api: Api):
    stream = health_pb2_grpc.HealthStub(api.channel).Watch(health_pb2.HealthCheckRequest(service=""))
    async with asyncio.timeout(10):
        assert (await stream.read()).status != health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    stream.cancel()


def test_what_the_servers_options_allow_fits_together():
    known = dict(options.options(CallLimits(max_streams=7)))
    assert known["grpc.max_receive_message_length"] == 4 * 2**20
    assert known["grpc.max_concurrent_streams"] > 7, "our own limit answers first"
    assert known["grpc.http2.min_recv_ping_interval_without_data_ms"] < 60_000, "the SDK pings once a minute"
