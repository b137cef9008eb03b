"""One tenant's calls and streams have limits, which are told with the time to wait, and leave the others alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from lorafleet.errors import LorafleetError, QuotaExceeded, RateLimited, ResourceExhausted
from lorafleet.transport.rpc_errors import from_rpc_error
from lorafleet.v1 import adapter_service_pb2 as adapters_pb
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import batch_service_pb2_grpc, report_service_pb2_grpc
from lorafleet.v1 import report_service_pb2 as report_pb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.access.identity import Identity
from service.api.interceptors import call_limits
from service.api.interceptors.call_limits import Rates, TokenBucket
from service.api.interceptors.limiting import tenant_of
from service.api.options import new_server
from service.db.models import TenantRow
from service.server.serving import add_services
from service.settings.serve_settings import CallLimits
from tests.service.world import World


async def admin(context) -> Identity:
    return Identity(principal="alice", is_admin=True)


@asynccontextmanager
async def serving(world: World, limits: CallLimits) -> AsyncIterator[grpc.aio.Channel]:
    server = new_server(limits, admin, world.tools.db)
    port = server.add_insecure_port("127.0.0.1:0")
    await add_services(server, world.tools, asyncio.Event())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def refused(call) -> LorafleetError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value)


def listing(channel: grpc.aio.Channel, tenant: str = "acme"):
    return rpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent=f"tenants/{tenant}"))


def watching(channel: grpc.aio.Channel, tenant: str = "acme"):
    return rpc.TrainingServiceStub(channel).WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent=f"tenants/{tenant}"))


async def test_a_tenant_that_calls_too_often_is_told_when_to_come_again(world: World):
    async with serving(world, CallLimits(max_requests_per_s=0.5)) as channel:
        await listing(channel)
        error = await refused(listing(channel))
        assert isinstance(error, RateLimited)
        assert error.retryable
        assert 0 < (error.retry_delay_s or 0) <= 2.0
        await listing(channel, "other")  # another tenant's calls are its own


async def test_every_kind_of_call_costs(world: World):
    create = [batch_pb.CreateBatchRequest(header=batch_pb.BatchHeader(parent="tenants/acme"))]
    calls: list[Callable[[grpc.aio.Channel], object]] = [
        lambda channel: rpc.TrainingServiceStub(channel).GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/acme/jobs/x")),
        lambda channel: batch_service_pb2_grpc.BatchServiceStub(channel).CreateBatch(iter(create)),
        lambda channel: watching(channel).read(),
    ]
    async with serving(world, CallLimits(max_requests_per_s=0.01)) as channel:
        await listing(channel)
        for call in calls:
            assert isinstance(await refused(call(channel)), RateLimited)


async def test_a_tenants_own_limit_comes_before_the_servers(world: World):
    async with world.tools.db.transaction() as tx:
        tx.session.add(TenantRow(id="acme", max_requests_per_s=1000, create_time=tx.now, update_time=tx.now))
    async with serving(world, CallLimits(max_requests_per_s=0.01)) as channel:
        for _ in range(10):
            await listing(channel)


async def test_reports_cost_their_run_and_not_the_tenant(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_limits, "RUN_REPORTS_PER_S", 0.01)
    _, run = await world.started()
    metadata = (("authorization", f"Bearer {world.tools.tokens.of(run, world.clock.now())}"),)
    async with serving(world, CallLimits(max_requests_per_s=0.01)) as channel:
        reports = report_service_pb2_grpc.ReportServiceStub(channel)
        request = report_pb.ReportRequest(run=run, source="driver")
        guess = await refused(reports.Report(request, metadata=(("authorization", "Bearer guess"),)))
        assert guess.reason == "BAD_RUN_TOKEN"
        await reports.Report(request, metadata=metadata)
        assert isinstance(await refused(reports.Report(request, metadata=metadata)), RateLimited)
        await listing(channel)


async def test_streams_are_counted_while_they_are_open(world: World):
    async with serving(world, CallLimits(max_streams=3, max_streams_per_tenant=2)) as channel:
        first, second = watching(channel), watching(channel)
        for stream in (first, second):
            await stream.read()
        error = await refused(watching(channel).read())
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.retryable) == ("TOO_MANY_STREAMS", True)
        other = watching(channel, "other")
        await other.read()
        assert "at this server" in (await refused(watching(channel, "third").read())).message
        first.cancel()
        async with asyncio.timeout(10):
            while isinstance(await _opened(channel), ResourceExhausted):
                pass
        second.cancel()
        other.cancel()


async def _opened(channel: grpc.aio.Channel) -> LorafleetError | None:
    stream = watching(channel)
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    stream.cancel()
    return None


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def rates(world: World, time: Time) -> Rates:
    return Rates(world.tools.db, CallLimits(max_requests_per_s=10), monotonic=time)


async def taken(rates: Rates, tenant: str = "acme", principal: str = "alice") -> int:
    """How many calls are taken at this moment."""
    for count in range(1000):
        try:
            await rates.take(tenant, principal)
        except RateLimited:
            return count
    raise AssertionError("no limit")


async def test_a_bucket_holds_two_seconds_of_calls_and_fills_at_its_rate(rates: Rates, time: Time):
    assert await taken(rates) == 20
    time.now += 0.5
    assert await taken(rates) == 5
    time.now += 3600
    assert await taken(rates) == 20


async def test_the_delay_that_is_told_is_long_enough_and_not_longer(rates: Rates, time: Time):
    await taken(rates)
    with pytest.raises(RateLimited) as limited:
        await rates.take("acme", "alice")
    delay_s = limited.value.retry_delay_s or 0.0
    time.now += delay_s * 0.9
    assert await taken(rates) == 0
    time.now += delay_s * 0.11
    assert await taken(rates) == 1


async def test_a_clock_that_goes_back_gives_and_takes_nothing(rates: Rates, time: Time):
    await taken(rates)
    time.now -= 500
    assert await taken(rates) == 0
    time.now += 0.1
    assert await taken(rates) == 1


async def test_strangers_use_up_their_own_calls_and_not_the_tenants(rates: Rates):
    async def knock() -> None:
        await rates.take("acme", "mallory")
        rates.was_a_stranger("acme", "mallory")

    for _ in range(10):
        await knock()
    with pytest.raises(RateLimited):
        await knock()
    assert await taken(rates) == 20


async def test_memory_of_who_called_is_bounded(world: World, time: Time, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_limits, "MAX_BUCKETS", 10)
    rates = Rates(world.tools.db, CallLimits(), monotonic=time)
    for place in range(50):
        await rates.take(f"tenant-{place}", "alice")
        rates.take_report(f"run-{place}", "token")
    assert len(rates._buckets) == len(rates._own) == 10


def test_streams_that_fail_are_closed_too():
    slots = call_limits.streams(CallLimits(max_streams=1))
    for _ in range(3):
        with pytest.raises(QuotaExceeded), slots.open("acme"):
            raise QuotaExceeded("x", violations=[])
    assert (slots.num_open, slots._of) == (0, {})


async def test_calls_that_name_no_tenant_use_up_their_callers_own(rates: Rates):
    assert await taken(rates, tenant="", principal="mallory") == 20
    assert await taken(rates, tenant="", principal="alice") == 20


async def begin(channel: grpc.aio.Channel, tenant: str = "acme") -> grpc.aio.StreamUnaryCall:
    """A batch that is not at its end."""
    call = batch_service_pb2_grpc.BatchServiceStub(channel).CreateBatch(timeout=60)
    await call.write(batch_pb.CreateBatchRequest(header=batch_pb.BatchHeader(parent=f"tenants/{tenant}")))
    return call


async def test_batches_that_come_in_are_counted_until_they_are_whole(world: World, monkeypatch: pytest.MonkeyPatch):
    """Each may be held in memory up to 64 MiB."""
    monkeypatch.setattr(call_limits, "MAX_UPLOADS", 3)
    monkeypatch.setattr(call_limits, "MAX_UPLOADS_PER_TENANT", 2)
    async with serving(world, CallLimits()) as channel:
        calls = [await begin(channel) for _ in range(3)]
        ends = [asyncio.create_task(refused(call)) for call in calls]
        [first], held = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert (first.result().reason, first.result().retryable) == ("TOO_MANY_UPLOADS", True)
        assert first.result().retry_delay_s == call_limits.UPLOAD_DELAY_S
        others = [await begin(channel, tenant) for tenant in ("other", "third")]
        ends = [asyncio.create_task(refused(call)) for call in others]
        [one], left = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert "at this server" in one.result().message
        for call in [*calls, *others]:
            if not call.done():
                await call.done_writing()
        assert {task.result().reason for task in (await asyncio.wait(held | left))[0]} == {"INVALID_SPEC"}, "they hold no item"
        again = await begin(channel)
        await again.done_writing()
        assert (await refused(again)).reason == "INVALID_SPEC"


async def test_a_batch_whose_sender_stops_in_the_middle_is_given_up(world: World):
    async with serving(world, CallLimits(slow_writer_s=0.2)) as channel:
        error = await refused(await begin(channel))
        assert (error.reason, error.retryable) == ("SLOW_WRITER", True)


def test_a_bucket_of_less_than_one_call_a_second_holds_one():
    assert TokenBucket(left=1.0, at=0.0).wait(0.1, 0.0) == 0.0


def test_an_update_counts_for_the_tenant_of_what_it_carries():
    update = adapters_pb.UpdateAdapterRequest(adapter=adapters_pb.Adapter(name="tenants/acme/adapters/fox"))
    assert [tenant_of(update), tenant_of(adapters_pb.UpdateAdapterRequest())] == ["acme", ""]
