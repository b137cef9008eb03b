"""StreamTrainingJobLogs: live, after the end, and across attempts; every line once."""

import asyncio

import pytest

from lorafleet.errors import NotFound
from lorafleet.v1 import training_service_pb2 as pb
from service.api import job_logs
from service.api.job_logs import LogStream
from service.backends.fake import FakeBackend
from service.core.resource_names import JobName
from service.core.wakeups import Bell
from service.db.database import Database
from service.db.engines import engine_of
from service.jobs.messages import job_event
from tests.service.world import World, succeeded


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "POLL_S", 0.01)


def stream(world: World, name: JobName, *, attempt: int = 0, follow: bool = False):
    tools = world.tools
    reader = LogStream(db=tools.db, backend=tools.backend, store=tools.store, stopping=asyncio.Event())
    return reader.pieces(name, attempt=attempt, follow=follow)


async def read(world: World, name: JobName, **how) -> list[tuple[int, str]]:
    async with asyncio.timeout(10):
        return [(piece.attempt, piece.text) async for piece in stream(world, name, **how)]


async def test_what_is_there_is_shown_and_the_call_ends(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\ntwo\nthr"
    assert await read(world, name) == [(1, "one\ntwo\nthr")]


async def test_a_job_without_a_run_has_no_log_yet(world: World):
    assert await read(world, await world.submit()) == []


async def test_following_shows_whole_lines_as_they_come_and_ends_with_the_job(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\ntw"
    pieces = stream(world, name, follow=True)
    async with asyncio.timeout(10):
        assert (await anext(pieces)).text == "one\n"
        world.backend.written[run] = b"one\ntwo\nend"
        assert (await anext(pieces)).text == "two\n"
        await world.report(run, succeeded())
        world.backend.end(run)
        world.clock.advance(5)
        await world.settle()
        await world.copy_logs()
        assert [piece.text async for piece in pieces] == ["end"]


async def test_logs_outlive_the_backend(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    world.backend.end(run)
    world.clock.advance(5)
    await world.settle()
    await world.copy_logs()
    world.backend.written.clear()
    world.backend.reachable = False
    assert await read(world, name) == [(1, "one\n")]


async def test_while_the_backend_is_away_the_store_shows_what_was_copied(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    world.backend.reachable = False
    assert await read(world, name) == [(1, "one\n")]


async def test_attempts_come_in_order_or_one_alone(world: World):
    name, first = await world.running()
    world.backend.written[first] = b"first\n"
    world.backend.end(first)
    world.clock.advance(5)
    await world.settle()
    world.clock.advance(5)
    await world.settle()
    world.backend.written[world.backend.launches[-1]] = b"second\n"
    assert await read(world, name) == [(1, "first\n"), (2, "second\n")]
    assert await read(world, name, attempt=2) == [(2, "second\n")]
    with pytest.raises(NotFound):
        await read(world, name, attempt=3)


async def test_long_logs_come_in_pieces_that_fit_a_message(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"x" * 99 + b"\n"
    world.backend.written[run] *= 20_000
    pieces = await read(world, name)
    assert all(len(text) <= job_logs.PIECE_BYTES and text.endswith("\n") for _, text in pieces)
    assert "".join(text for _, text in pieces).encode() == world.backend.written[run]


async def test_a_log_is_tailed_through_another_replica_than_the_one_that_copies_it(world: World, database_url: str):
    """That one does not reach the backend at all, then for a while, then not again: every line comes once all the same."""
    name, run = await world.running()
    other = FakeBackend(reachable=False, written=world.backend.written)
    db = Database(engine_of(database_url), world.clock, Bell(), job_event)
    pieces = LogStream(db=db, backend=other, store=world.tools.store, stopping=asyncio.Event()).pieces(name, attempt=0, follow=True)

    async def copied(text: bytes) -> None:
        world.backend.written[run] = text
        world.clock.advance(10)
        await world.copy_logs()

    async with asyncio.timeout(20):
        await copied(b"one\ntw")
        assert (await anext(pieces)).text == "one\n"
        await copied(b"one\ntwo\n")
        assert (await anext(pieces)).text == "two\n"
        other.reachable = True
        world.backend.written[run] = b"one\ntwo\nthree\n"
        assert (await anext(pieces)).text == "three\n"
        other.reachable = False
        await copied(b"one\ntwo\nthree\nfour\n")
        assert (await anext(pieces)).text == "four\n"
        world.backend.written[run] += b"the end"
        await world.report(run, succeeded())
        world.backend.end(run)
        world.clock.advance(10)
        await world.settle()
        await world.copy_logs()
        assert [piece.text async for piece in pieces] == ["the end"]
    await db.close()


async def test_a_reader_that_follows_asks_for_what_is_new(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    pieces = stream(world, name, follow=True)
    async with asyncio.timeout(10):
        seen: list[pb.StreamTrainingJobLogsResponse] = [await anext(pieces)]
        world.backend.written[run] = b"one\ntwo\n"
        seen.append(await anext(pieces))
    await pieces.aclose()
    assert [piece.text for piece in seen] == ["one\n", "two\n"]
    assert world.backend.log_reads[0] == 0
    assert set(world.backend.log_reads[1:]) == {4}
