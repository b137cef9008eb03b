"""Logs are in the store before the backend that wrote them is gone."""

import tracemalloc
from collections.abc import AsyncGenerator

import pytest

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import Unavailable
from service.backends.base import RunRef
from service.backends.fake import FakeBackend
from service.db.models import RunLogRow
from service.store import job_logs
from service.store.client import Store
from tests.service.world import World, progress, succeeded


async def _stored(world: World, name) -> bytes | None:
    return await world.tools.store.get(JobLayout((await world.job(name)).output_uri).log(1))


async def test_a_log_is_copied_while_the_run_lives_and_once_more_at_its_end(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    assert await _stored(world, name) == b"one\n"

    world.backend.written[run] = b"one\ntwo\n"
    world.backend.end(run)
    world.clock.advance(10)
    await world.settle()
    await world.copy_logs()
    assert await _stored(world, name) == b"one\ntwo\n"
    world.backend.written[run] = b"never read"
    world.clock.advance(60)
    await world.copy_logs()
    assert await _stored(world, name) == b"one\ntwo\n"


async def test_a_backend_that_lost_a_log_takes_nothing_from_the_store(world: World):
    name, run = await world.running()
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    world.backend.written[run] = b""
    world.backend.end(run)
    world.clock.advance(10)
    await world.settle()
    await world.copy_logs()
    assert await _stored(world, name) == b"one\n"


async def test_each_style_of_a_pack_gets_its_own_lines(world: World):
    names = [await world.submit("one"), await world.submit("two")]
    await world.settle()
    (run,) = world.backend.launches
    world.backend.written[run] = b"both\n" + b"".join(b"(RayTrainWorker pid=7) [%s] step\n" % str(name).encode() for name in names)
    await world.copy_logs()
    for name in names:
        assert await _stored(world, name) == b"both\n(RayTrainWorker pid=7) [%s] step\n" % str(name).encode()


async def test_runs_on_warm_workers_each_get_their_part_and_the_first_is_whole_while_they_live(world: World):
    first, run = await world.running("first")
    await world.report(run, succeeded())
    await world.report(run, idle=True)
    second = await world.submit("second")
    await world.settle()
    told = (await world.report(run, idle=True)).next_run
    world.backend.written[run] = f"one\n== run {told.run} ==\ntwo\n".encode()
    await world.report(told.run, progress(1))
    world.clock.advance(6)
    await world.copy_logs()
    assert await _stored(world, first) == b"one\n"
    assert await _stored(world, second) == f"== run {told.run} ==\ntwo\n".encode()


async def test_a_job_whose_workers_wait_has_its_whole_log(world: World):
    """Whoever follows it must not have to wait until the workers go."""
    name, run = await world.running()
    await world.report(run, succeeded())
    await world.report(run, idle=True)
    world.backend.written[run] = b"one\n"
    await world.copy_logs()
    world.clock.advance(6)
    await world.copy_logs()
    async with world.tools.db.snapshot() as tx:
        copy = await tx.session.get(RunLogRow, run)
    assert copy is not None
    assert copy.complete
    assert await _stored(world, name) == b"one\n"


LINES = b"".join(b"line %d\n" % number for number in range(40))


async def _whole(world: World, name) -> bytes:
    layout = JobLayout((await world.job(name)).output_uri)
    return b"".join([piece async for piece in job_logs.read(world.tools.store, layout, 1, 0)])


async def _again(world: World) -> None:
    world.clock.advance(10)
    await world.copy_logs()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "OBJECT_BYTES", 50)
    monkeypatch.setattr(job_logs, "READ_BYTES", 7)


async def test_what_is_new_is_read_and_no_more(world: World):
    name, run = await world.running()
    for end in (100, 105, 200, len(LINES)):
        world.backend.written[run] = LINES[:end]
        await _again(world)
        assert await _whole(world, name) == LINES[: LINES.rfind(b"\n", 0, end) + 1], "whole lines"
    starts = world.backend.log_reads
    assert starts == [LINES.rfind(b"\n", 0, start) + 1 for start in (0, 100, 105, 200)]


@pytest.mark.usefixtures("small")
async def test_a_long_log_is_kept_in_objects_of_limited_size(world: World):
    name, run = await world.running()
    for end in range(0, len(LINES) + 1, 33):
        world.backend.written[run] = LINES[:end]
        await _again(world)
    world.backend.written[run] = LINES + b"the end"
    world.backend.end(run)
    await world.settle()
    await _again(world)
    assert await _whole(world, name) == LINES + b"the end"
    sizes = [file.stat().st_size for file in (world.folder / "artifacts").rglob("attempt-1*.log")]
    assert sorted(sizes) == [len(LINES + b"the end") % 50, *[50] * (len(LINES + b"the end") // 50)]


class Breaking(Store):
    """A store that breaks off some of its first writes, after the write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []  # of this store and its views of one folder

    async def put(self, uri: str, data: bytes) -> None:
        await super().put(uri, data)
        self.writes.append(uri)
        if len(self.writes) in {2, 3, 5, 9, 12, 14, 21, 22, 30}:
            raise Unavailable("the store went away", reason="STORE_UNREACHABLE")


@pytest.mark.usefixtures("small")
async def test_what_a_broken_step_has_written_is_not_doubled(world: World):
    names = [await world.submit("one"), await world.submit("two")]
    await world.settle()
    (run,) = world.backend.launches
    world.with_tools(store=Breaking())
    for end in [*range(0, len(LINES), 33), *[len(LINES)] * 9]:
        world.backend.written[run] = LINES[:end]
        await _again(world)
    for name in names:
        assert await _whole(world, name) == LINES


@pytest.mark.usefixtures("small")
async def test_a_member_that_joins_gets_what_was_copied_before(world: World):
    names = [await world.submit("one"), await world.submit("two")]
    await world.settle()
    (run,) = world.backend.launches
    text = b"".join(b"[run] both\n[%s] step\n" % str(name).encode() for name in names)
    world.backend.written[run] = text + b"[tena"
    await _again(world)
    late = (await world.job(names[1])).uid
    async with world.tools.db.transaction() as tx:
        copy = await tx.session.get(RunLogRow, run)
        assert copy is not None
        assert copy.reading is not None
        copy.reading = {**copy.reading, "written": {uid: size for uid, size in copy.reading["written"].items() if uid != late}}
    world.backend.written[run] = text + b"[run] more\n"
    await _again(world)
    assert await _whole(world, names[1]) == b"[run] both\n[run] both\n[%s] step\n[run] more\n" % str(names[1]).encode()
    assert await _whole(world, names[0]) == b"[run] both\n[%s] step\n[run] both\n[run] more\n" % str(names[0]).encode()


@pytest.mark.usefixtures("small")
async def test_a_copy_that_was_deleted_is_made_anew(world: World):
    name, run = await world.running()
    world.backend.written[run] = LINES[:120]
    await _again(world)
    for file in (world.folder / "artifacts").rglob("attempt-1*.log"):
        file.unlink()
    world.backend.written[run] = LINES
    await _again(world)
    await _again(world)
    assert await _whole(world, name) == LINES


class Endless(FakeBackend):
    """Every run has written 48 MB."""

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        for _ in range(start // 64_000, 750):
            yield b"x" * 15_999 + b"\n" + (b"y" * 47_999 + b"\n")


async def test_no_log_is_ever_held_whole(world: World):
    name, _ = await world.running()
    world.with_tools(backend=Endless())
    tracemalloc.start()
    await world.copy_logs()
    size_bytes = 0
    async for piece in job_logs.read(world.tools.store, JobLayout((await world.job(name)).output_uri), 1, 0):
        size_bytes += len(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size_bytes == 750 * 64_000
    assert peak_bytes < 24e6, "the log has 48 MB"


async def test_a_backend_may_forget_a_run_once_its_whole_log_is_copied(world: World):
    _, run = await world.running()
    world.backend.written[run] = b"a line\n"
    await world.copy_logs()
    assert world.backend.forgotten == []
    await world.report(run, succeeded())
    world.backend.end(run)
    world.clock.advance(60)
    await world.settle()
    await world.copy_logs()
    assert world.backend.forgotten == [run]
