"""No answer is larger than a client takes that asks for nothing special, and large ones travel compressed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import pytest

from lorafleet.v1 import access_service_pb2 as access_pb
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.api.lists import paging
from service.api.servicers import batches as batching
from service.core.resource_names import parse_job
from tests.service.access.members import make_grant, make_tenant
from tests.service.api.batch_requests import create, header, item, plan_parts
from tests.service.api.refusals import refusal
from tests.service.api.served import Api

PROMPTS = {"validation": {"prompts": ["größe" * 399 for _ in range(64)]}}  # about as large as a spec can be
DEFAULT_LIMIT = 4 * 2**20


async def listed(api: Api, page_size: int = 1000) -> tuple[list[str], list[int]]:
    """The ids on all pages, and the size of each page in bytes. The channel has the limits that gRPC gives it."""
    request, names, sizes = pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=page_size, order_by="create_time"), [], []
    while True:
        page = await api.jobs.ListTrainingJobs(request)
        names += [parse_job(job.name).job_id for job in page.training_jobs]
        sizes.append(page.ByteSize())
        if not page.next_page_token:
            return names, sizes
        request.page_token = page.next_page_token


async def test_a_page_of_large_specs_ends_before_the_message_does(api: Api):
    wanted = []
    for number in range(30):
        wanted.append((await api.world.submit(f"job-{number:02d}", **PROMPTS)).job_id)
        api.world.clock.advance(1)
    names, sizes = await listed(api)
    assert names == wanted
    assert max(sizes) <= DEFAULT_LIMIT
    assert len(sizes) > 1
    assert min(sizes[:-1]) > DEFAULT_LIMIT / 2, "and not much before"


async def test_pages_of_a_batch_end_there_too(api: Api):
    defaults = header(api.world).defaults
    defaults.validation.prompts.extend(PROMPTS["validation"]["prompts"])
    await create(api, [item() for _ in range(30)], defaults=defaults)
    request, indices = batch_pb.ListBatchJobsRequest(parent="tenants/acme/batches/night", page_size=1000), []
    while not indices or request.page_token:
        page = await api.batches.ListBatchJobs(request)
        assert page.ByteSize() <= DEFAULT_LIMIT
        indices += [job.batch_index for job in page.training_jobs]
        request.page_token = page.next_page_token
    assert indices == list(range(30))


@pytest.mark.parametrize("page_size", [1, 3, 4, 7, 8, 100])
async def test_whatever_the_sizes_every_row_comes_once(api: Api, monkeypatch: pytest.MonkeyPatch, page_size: int):
    monkeypatch.setattr(paging, "AT_ONCE", 3)
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 3000)
    wanted = []
    for number in range(12):
        prompts = {"validation": {"prompts": ["x" * 1000] * (5 if number == 6 else number % 3)}}
        wanted.append((await api.world.submit(f"job-{number:02d}", **prompts)).job_id)
        api.world.clock.advance(1)
    names, sizes = await listed(api, page_size)
    assert names == wanted
    assert sum(size > 3300 for size in sizes) == 1, "that of the one job that is larger than a page"


async def test_lists_of_what_a_tenant_has_end_there_too(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 1000)
    await make_tenant(api.world.tools.db, "acme")
    prefixes = [f"s3://bucket/{'x' * 300}{number}" for number in range(7)]
    for prefix in prefixes:
        await make_grant(api.world.tools.db, "acme", prefix)
    request, found = access_pb.ListGrantsRequest(parent="tenants/acme"), []
    while not found or request.page_token:
        page = await api.access.ListGrants(request)
        assert len(page.grants) <= 3, "each has 330 bytes"
        found += [grant.prefix for grant in page.grants]
        request.page_token = page.next_page_token
    assert found == prefixes


async def test_a_plan_that_no_answer_holds_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "MAX_RESPONSE_BYTES", 100)
    answer = await refusal(api.batches.PlanBatch(plan_parts(header(api.world), [item(), item()])))
    assert (answer.code, answer.reason, list(answer.fields)) == ("INVALID_ARGUMENT", "PLAN_TOO_LARGE", ["items"])


@dataclass
class Wire:
    """A relay before the server that counts what comes back."""

    port: int = 0
    answered_bytes: int = 0


@asynccontextmanager
async def wire(address: str) -> AsyncIterator[Wire]:
    counted = Wire()
    host, _, port = address.rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counts: bool) -> None:
            while data := await source.read(65536):
                counted.answered_bytes += len(data) if counts else 0
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, there_writer, counts=False), pump(there_reader, writer, counts=True), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    counted.port = server.sockets[0].getsockname()[1]
    yield counted
    server.close()


async def test_pages_travel_compressed_to_clients_that_take_it_and_plain_to_others(api: Api):
    for number in range(4):
        await api.world.submit(f"job-{number}", **PROMPTS)

    async def listed_over(options: list[tuple[str, int]]) -> tuple[bytes, int]:
        async with wire(api.address) as counted, grpc.aio.insecure_channel(f"127.0.0.1:{counted.port}", options=options) as channel:
            request = pb.ListTrainingJobsRequest(parent="tenants/acme")
            page = await rpc.TrainingServiceStub(channel).ListTrainingJobs(request)
            return page.SerializeToString(deterministic=True), counted.answered_bytes

    compressed, few_bytes = await listed_over([])
    plain, many_bytes = await listed_over([("grpc.compression_enabled_algorithms_bitset", 1)])  # identity alone
    assert compressed == plain
    assert many_bytes > len(plain)
    assert few_bytes < len(plain) / 10


async def test_logs_travel_compressed(api: Api):
    name, run = await api.world.running()
    api.world.backend.written[run] = b"a line like the one before it\n" * 20_000
    async with wire(api.address) as counted, grpc.aio.insecure_channel(f"127.0.0.1:{counted.port}") as channel:
        stream = rpc.TrainingServiceStub(channel).StreamTrainingJobLogs(pb.StreamTrainingJobLogsRequest(name=str(name)))
        text = "".join([piece.text async for piece in stream])
        assert text.encode() == api.world.backend.written[run]
        assert counted.answered_bytes < len(text) / 10
