"""The SDK's batches against the real servicers: what both sides must agree on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import grpc.aio
import pytest
import yaml

from lorafleet.batch import file as batch_file
from lorafleet.batch import folders
from lorafleet.client import Client
from lorafleet.errors import InvalidSpec
from lorafleet.states import job_id, label
from service.api.errors import ErrorInterceptor
from service.api.interceptors.authentication import AuthenticationInterceptor, anybody
from service.server.serving import add_services
from tests.service.world import World, failed

Result = TypeVar("Result")


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), AuthenticationInterceptor(anybody)])
    port = server.add_insecure_port("127.0.0.1:0")
    await add_services(server, world.tools, asyncio.Event())
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def by_client(address: str, call: Callable[[Client], Result]) -> Result:
    """What the client, which blocks, answers from its own thread."""

    def run() -> Result:
        with Client(address, tenant="acme") as client:
            return call(client)

    return await asyncio.to_thread(run)


def written(world: World, names: list[str], **item: object) -> Path:
    """A batch file with an item for each name."""
    folder = world.folder
    for name in names:
        (folder / "styles" / name).mkdir(parents=True)
        (folder / "styles" / name / "a.png").write_bytes(b"png")
    items = [{"job_id": name, "dataset": {"uri": f"file://{folder}/styles/{name}"}, **item} for name in names]
    path = folder / "styles.yaml"
    path.write_text(yaml.safe_dump({"batch_id": "night", "defaults": {"base_model": {"uri": f"file://{folder}/base"}}, "items": items}))
    return path


async def test_file_becomes_a_batch_whose_jobs_are_read_back_in_order(world: World, address: str) -> None:
    names = [f"style-{number}" for number in range(7)]
    read = batch_file.load(written(world, names), overrides=["training.max_steps=50"])
    batch = await by_client(address, lambda client: client.create_batch(read.defaults, read.items, batch_id=read.batch_id))
    assert (batch.name, batch.num_jobs) == ("tenants/acme/batches/night", 7)
    jobs = await by_client(address, lambda client: list(client.list_batch_jobs("night", page_size=3)))
    assert [(job_id(job), job.batch, job.batch_index) for job in jobs] == [(name, batch.name, index) for index, name in enumerate(names)]
    assert jobs[0].spec.training.max_steps == 50
    assert [found.name for found in await by_client(address, lambda client: list(client.list_batches()))] == [batch.name]


async def test_repeated_request_answers_the_first_batch(world: World, address: str) -> None:
    read = batch_file.load(written(world, ["fox", "cat"]))
    request_id = "0b0a5a8e-7d0e-4f5e-9a37-3d2c2b1a0f00"
    first, again = [
        await by_client(address, lambda client: client.create_batch(read.defaults, read.items, request_id=request_id)) for _ in range(2)
    ]
    assert first.uid == again.uid


async def test_what_the_server_finds_is_told_by_the_folder_it_is_in(world: World, address: str) -> None:
    written(world, ["fox", "cat"])
    (world.folder / "styles" / "cat" / "a.png").unlink()
    base = {"base_model": {"uri": f"file://{world.folder}/base"}}
    source = folders.each(f"file://{world.folder}/styles/*/", defaults=base)
    with pytest.raises(InvalidSpec) as caught:
        await by_client(address, lambda client: client.create_batch(source.defaults, source.items))
    (told,) = source.in_its_words(caught.value).violations
    assert told.field == "folder cat: dataset.uri"


async def test_plan_puts_like_items_into_one_pack(world: World, address: str) -> None:
    read = batch_file.load(written(world, ["fox", "cat", "owl"]))
    plan = await by_client(address, lambda client: client.plan_batch(read.defaults, read.items))
    assert [sorted(pack.items) for pack in plan.packs] == [[0, 1, 2]]


async def test_watch_of_a_cancelled_batch_ends(world: World, address: str) -> None:
    read = batch_file.load(written(world, ["fox", "cat"]))
    await by_client(address, lambda client: client.create_batch(read.defaults, read.items, batch_id="night"))
    await by_client(address, lambda client: client.cancel_batch("night"))
    watched = await by_client(address, lambda client: list(client.watch_batch("night", timeout_s=30)))
    assert {job_id(job): label(job) for job in watched} == {"fox": "CANCELLED", "cat": "CANCELLED"}
    assert (await by_client(address, lambda client: client.get_batch("night"))).HasField("end_time")


async def test_failed_job_is_queued_again_and_the_others_stay(world: World, address: str) -> None:
    read = batch_file.load(written(world, ["fox"]))
    await by_client(address, lambda client: client.create_batch(read.defaults, read.items, batch_id="night"))
    await world.settle()
    (run,) = world.backend.launches
    await world.report(run, failed("NAN_LOSS", retryable=False))
    assert label((await by_client(address, lambda client: list(client.watch_batch("night"))))[-1]) == "FAILED"
    world.backend.end(run)
    await world.settle()
    await by_client(address, lambda client: client.retry_failed("night"))
    (job,) = await by_client(address, lambda client: list(client.list_batch_jobs("night")))
    assert label(job) == "QUEUED"
