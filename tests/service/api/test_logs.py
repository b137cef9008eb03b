"""StreamTrainingJobLogs: live, after the end, and across attempts; every line once."""

import asyncio

import pytest

from lorafleet.errors import NotFound
from service.api import logs
from service.api.logs import LogStream
from service.names import JobName
from tests.service.world import World, succeeded


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_S", 0.01)


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
    assert all(len(text) <= logs.PIECE_BYTES and text.endswith("\n") for _, text in pieces)
    assert "".join(text for _, text in pieces).encode() == world.backend.written[run]
