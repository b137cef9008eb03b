"""Nobody without a token shuts others out, and no caller the rest: what waits for its caller has places, and a time to come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lorafleet import spec_proto
from lorafleet.errors import LorafleetError, Unauthenticated
from lorafleet.transport.rpc_errors import from_rpc_error
from lorafleet.v1 import batch_service_pb2_grpc
from lorafleet.v1 import report_service_pb2 as report_pb
from lorafleet.v1 import report_service_pb2_grpc as report_rpc
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.access.identity import Identity, Role
from service.api import options
from service.api.interceptors import call_limits, call_stages
from service.api.interceptors.call_stages import address_of
from service.api.options import most_calls, new_server
from service.db.engines import sqlite_url
from service.server.serving import add_services
from service.settings.serve_settings import CallLimits
from tests.service.access.members import make_grant, make_member
from tests.service.api.raw_http2 import HEADERS, Raw, message, raw
from tests.service.world import World

HEALTH = "/grpc.health.v1.Health/Check"
LIST = "/lorafleet.v1.TrainingService/ListTrainingJobs"
REPORT = "/lorafleet.v1.ReportService/Report"
ALICE, BOB = (("name", "alice"),), (("name", "bob"),)


@pytest.fixture
def database_url(database_path: Path) -> str:
    """None of it depends on the database: one kind will do."""
    return sqlite_url(database_path)


async def by_name(context: Any) -> Identity:
    name = dict(context.invocation_metadata() or ()).get("name")
    if name is None:
        raise Unauthenticated("no name", reason="TOKEN_MISSING")
    return Identity(principal=str(name), is_admin=True)


@dataclass
class Door:
    port: int
    channel: grpc.aio.Channel
    world: World

    def half_sent(self, method: str, metadata: Any = ()) -> Any:
        """A call whose message does not come: to gRPC one that would send many is the same on the wire."""
        return self.channel.stream_unary(method)(metadata=metadata, timeout=60)

    async def lists(self, metadata: Any = ALICE) -> Any:
        return await rpc.TrainingServiceStub(self.channel).ListTrainingJobs(
            pb.ListTrainingJobsRequest(parent="tenants/acme"), metadata=metadata, timeout=20
        )

    async def health(self) -> Any:
        return await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=20)


@asynccontextmanager
async def door(world: World, **limits: Any) -> AsyncIterator[Door]:
    server = new_server(CallLimits(**limits), by_name, world.tools.db)
    port = server.add_insecure_port("127.0.0.1:0")
    await add_services(server, world.tools, asyncio.Event())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Door(port, channel, world)
    await server.stop(None)


async def refused(call: Any) -> LorafleetError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(20):
            await call
    return from_rpc_error(raised.value)


async def first_end(calls: list[Any]) -> Any:
    """The one that ends first, while the others wait."""
    ends = {asyncio.create_task(call.code()): call for call in calls}
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    assert done
    return ends[done.pop()]


@pytest.mark.parametrize("method", [LIST, "/lorafleet.v1.TrainingService/WatchTrainingJobs", "/lorafleet.v1.BatchService/CreateBatch"])
async def test_without_a_token_no_call_waits_for_its_message(world: World, method: str):
    async with door(world) as opened:
        assert (await refused(opened.half_sent(method))).reason == "TOKEN_MISSING"


@pytest.mark.parametrize(
    ("method", "metadata"), [(LIST, ALICE), ("/lorafleet.v1.TrainingService/WatchTrainingJobs", ALICE), (HEALTH, ()), (REPORT, ())]
)
async def test_a_message_that_does_not_come_ends_its_call(world: World, method: str, metadata: Any):
    async with door(world, slow_writer_s=0.2) as opened:
        error = await refused(opened.half_sent(method, metadata))
        assert (error.reason, error.retryable) == ("SLOW_WRITER", True)


async def test_a_message_that_stops_half_way_ends_its_call(world: World):
    async with door(world, slow_writer_s=0.2) as opened, raw(opened.port) as caller:
        stream = await caller.call(HEALTH, message(b"\x0a\x05")[:-1], is_whole=False)
        assert b"the message was not sent whole" in await caller.until(HEADERS, stream)


async def test_half_sent_calls_of_strangers_shut_nobody_out(world: World):
    async with door(world, max_unknown_calls=4, max_unknown_calls_per_address=2) as opened:
        calls = [opened.half_sent(HEALTH) for _ in range(3)]
        error = await refused(await first_end(calls))  # of three the one that has waited longest
        await opened.health()
        assert (error.reason, error.retryable) == ("TOO_MANY_CALLS", True)
        await opened.lists()


async def test_half_sent_reports_leave_places_for_runs(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_stages, "MOST_REPORTS_EACH", 2)
    _, run = await world.started()
    metadata = (("authorization", f"Bearer {world.tools.tokens.of(run, world.clock.now())}"),)
    async with door(world) as opened:
        assert (await refused(await first_end([opened.half_sent(REPORT) for _ in range(3)]))).reason == "TOO_MANY_CALLS"
        await report_rpc.ReportServiceStub(opened.channel).Report(report_pb.ReportRequest(run=run, source="driver"), metadata=metadata)


async def test_half_sent_calls_of_one_caller_are_that_callers_loss(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_stages, "MOST_WAITING", 3)
    async with door(world) as opened:
        mine = opened.half_sent(LIST, BOB)
        others = [opened.half_sent(LIST, ALICE) for _ in range(3)]
        assert await first_end([mine, *others]) is not mine
        await opened.lists(BOB)
        assert not mine.done()


async def test_a_batch_that_is_not_begun_has_a_place_like_other_calls(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_stages, "MOST_WAITING_EACH", 2)
    async with door(world) as opened:
        stub = batch_service_pb2_grpc.BatchServiceStub(opened.channel)
        calls = [stub.CreateBatch(metadata=ALICE, timeout=60) for _ in range(3)]
        assert (await refused(await first_end(calls))).reason == "TOO_MANY_CALLS"


def watching(opened: Door) -> Any:
    return health_pb2_grpc.HealthStub(opened.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)


async def test_watches_of_health_leave_places_for_all_else(world: World):
    async with door(world, max_streams=1, max_unknown_calls=3, max_unknown_calls_per_address=2) as opened:
        watches = [watching(opened) for _ in range(2)]
        for watch in watches:
            await watch.read()
        error = await refused(watching(opened).read())
        assert (error.reason, error.retryable) == ("TOO_MANY_CALLS", True)
        await opened.health()
        await opened.lists()
        watches[0].cancel()
        async with asyncio.timeout(20):
            while not await _opens(opened):
                pass


async def _opens(opened: Door) -> bool:
    try:
        await watching(opened).read()
    except grpc.aio.AioRpcError:
        return False
    return True


async def unread(caller: Raw, num: int) -> None:
    """Calls whose answers have begun and find no room on the wire."""
    for stream in [await caller.call(HEALTH, message()) for _ in range(num)]:
        await caller.until(HEADERS, stream)


async def test_answers_that_nobody_reads_are_given_up(world: World, monkeypatch: pytest.MonkeyPatch):
    """What gRPC has to send for a call counts as long as it is there."""
    monkeypatch.setattr(options, "most_calls", lambda limits: 3)
    async with door(world, slow_reader_s=0.2) as opened, raw(opened.port, window=0) as caller:
        await unread(caller, 3)
        async with asyncio.timeout(20):
            while not await _is_healthy(opened):
                pass


async def _is_healthy(opened: Door) -> bool:
    try:
        return bool(await opened.health())
    except grpc.aio.AioRpcError:  # gRPC takes no more
        return False


async def test_answers_that_nobody_reads_leave_places_for_those_that_are(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_stages, "MOST_ANSWERS_EACH", 2)
    monkeypatch.setattr(options, "most_calls", lambda limits: 5)
    async with door(world) as opened, raw(opened.port, window=0) as caller:
        await unread(caller, 10)
        await opened.health()
        await opened.lists()


async def test_a_watcher_of_health_that_does_not_read_holds_up_no_other(world: World):
    async with door(world) as opened, raw(opened.port, window=0) as caller:
        await caller.call("/grpc.health.v1.Health/Watch", message())
        watch = watching(opened)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_streams_are_few_for_each_caller(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_limits, "MAX_REFLECTIONS_PER_CALLER", 1)
    async with door(world) as opened:
        reflection = reflection_pb2_grpc.ServerReflectionStub(opened.channel)
        held = reflection.ServerReflectionInfo(metadata=ALICE, timeout=60)
        await held.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await held.read()
        assert (await refused(reflection.ServerReflectionInfo(metadata=ALICE).read())).reason == "TOO_MANY_STREAMS"
        other = reflection.ServerReflectionInfo(metadata=BOB)
        await other.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await other.read()).list_services_response.service
        await opened.lists()


async def test_a_reflection_stream_that_asks_nothing_ends(world: World):
    async with door(world, slow_writer_s=0.2) as opened:
        stream = reflection_pb2_grpc.ServerReflectionStub(opened.channel).ServerReflectionInfo(metadata=ALICE, timeout=60)
        assert (await refused(stream.read())).reason == "SLOW_WRITER"


async def test_reflection_is_for_known_callers(world: World):
    async with door(world) as opened:
        stream = reflection_pb2_grpc.ServerReflectionStub(opened.channel).ServerReflectionInfo(timeout=60)
        assert (await refused(stream.read())).reason == "TOKEN_MISSING"


async def test_calls_at_work_are_counted_for_their_tenant(world: World, monkeypatch: pytest.MonkeyPatch):
    """A tenant's slow store is that tenant's affair."""
    monkeypatch.setattr(call_limits, "MAX_AT_WORK_PER_TENANT", 1)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(uri: str) -> bool:
        asked.set()
        await go_on.wait()
        return False

    await make_member(world.tools.db, "acme", "alice", Role.SUBMITTER)
    await make_grant(world.tools.db, "acme", f"file://{world.folder}", may_write=True)
    monkeypatch.setattr(world.tools.store, "is_empty", slow)
    async with door(world) as opened:
        job = pb.TrainingJob(spec=_spec(world))
        create = rpc.TrainingServiceStub(opened.channel).CreateTrainingJob(
            pb.CreateTrainingJobRequest(parent="tenants/acme", training_job=job), metadata=ALICE
        )
        async with asyncio.timeout(20):
            await asked.wait()
        error = await refused(opened.lists())
        assert (error.reason, error.retryable) == ("TOO_MANY_CALLS", True)
        await rpc.TrainingServiceStub(opened.channel).ListTrainingJobs(
            pb.ListTrainingJobsRequest(parent="tenants/other"), metadata=ALICE, timeout=20
        )
        go_on.set()
        await create


def _spec(world: World) -> Any:
    return spec_proto.to_proto(world.spec())


async def test_a_connection_that_says_nothing_is_closed(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(options, "HANDSHAKE_WITHIN_MS", 200)
    async with door(world) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        async with asyncio.timeout(20):
            while await reader.read(1024):  # what the server says first
                pass
        writer.close()


async def test_more_metadata_than_a_call_needs_is_refused(world: World):
    async with door(world) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await opened.lists((*ALICE, ("more", "x" * 100_000)))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await opened.lists()


def test_all_places_together_are_fewer_than_grpc_takes():
    limits = CallLimits()
    everything = limits.max_streams + call_limits.MAX_AT_WORK + call_limits.MAX_UPLOADS + call_limits.MAX_REFLECTIONS
    assert everything + call_stages.SlotPools.num_slots(limits) < most_calls(limits)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:50000", "10.1.2.3"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:50001", "2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:50000", "10.1.2.3"),
        ("ipv6:[fe80::1%eth0]:50000", "fe80::/64"),
        ("unix:", "unix:"),
    ],
)
def test_callers_are_counted_by_what_one_machine_can_have(peer: str, address: str):
    assert address_of(peer) == address
