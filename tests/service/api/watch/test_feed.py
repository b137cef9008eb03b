"""The feed that watchers share: one reading of the log for all, in bounded memory, and nobody misses a change."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest
from sqlalchemy.exc import OperationalError

from lorafleet.errors import Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.api.watch import feed as feeding
from service.api.watch import jobs as watching
from service.api.watch.batches import watch_batch
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import BatchName
from service.db import events
from tests.service.api.batch_requests import create, item
from tests.service.api.served import Api
from tests.service.world import World, progress

ALL = Scope(tenant="acme")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(feeding, "POLL_S", 0.01)


@pytest.fixture
def feed(world: World) -> Feed:
    return Feed(world.tools.db, asyncio.Event())


def watch(feed: Feed, scope: Scope = ALL, token: str = ""):
    return Watch(db=feed.db, scope=scope, feed=feed).events(token)


async def change(stream) -> pb.WatchTrainingJobsResponse:
    """The next event that is neither of a snapshot nor a heartbeat."""
    async with asyncio.timeout(20):
        while True:
            event = await anext(stream)
            if event.HasField("training_job") and not event.snapshot:
                return event


async def live(feed: Feed, scope: Scope = ALL) -> None:
    """Until the scope's watchers take their changes from the feed."""
    async with asyncio.timeout(20):
        while scope not in feed._topics or feed._topics[scope].since > feed.seq:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_change_is_read_once_however_many_watch(world: World, feed: Feed, monkeypatch: pytest.MonkeyPatch):
    _, run = await world.running("one")
    reads: list[int] = []

    async def counted(tx, seq, *which, limit):
        reads.append(seq)
        return await after(tx, seq, *which, limit=limit)

    after = events.after
    async with AsyncExitStack() as open_streams:
        streams = [await open_streams.enter_async_context(aclosing(watch(feed))) for _ in range(50)]
        waiting = [asyncio.create_task(change(stream)) for stream in streams]
        await live(feed)
        async with asyncio.timeout(20):
            while feed._topics[ALL].num_watchers < 50:  # noqa: ASYNC110
                await asyncio.sleep(0)
        for step in (2, 3, 4):  # with the first, those that had begun to read for themselves go over to the feed
            if step == 3:
                monkeypatch.setattr(events, "after", counted)
            await world.report(run, progress(step))
            told = await asyncio.gather(*waiting)
            assert [event.training_job.progress.step for event in told] == [step] * 50
            assert all(event is told[0] for event in told), "built once"
            waiting = [asyncio.create_task(change(stream)) for stream in streams]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert len(reads) == 2
    assert not feed._topics
    assert feed._reader is None, "nobody watches: nobody reads"


@pytest.mark.parametrize("limit", ["changes", "bytes"])
async def test_a_watcher_that_falls_out_of_the_feed_reads_on_from_the_log(world: World, feed: Feed, monkeypatch, limit: str):
    _, run = await world.running("one")
    monkeypatch.setattr(feeding, "MAX_CHANGES" if limit == "changes" else "MAX_BYTES", 5 if limit == "changes" else 20_000)
    async with aclosing(watch(feed)) as slow, aclosing(watch(feed)) as quick:
        waiting = asyncio.create_task(change(quick))
        await live(feed)
        while not (await anext(slow)).HasField("training_job"):
            pass
        for step in range(2, 40):
            await world.report(run, progress(step))
            assert (await waiting).training_job.progress.step == step
            assert len(feed._kept) <= 15
            waiting = asyncio.create_task(change(quick))
        assert [(await change(slow)).training_job.progress.step for _ in range(2, 40)] == list(range(2, 40))
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_changes_of_another_replica_are_seen(world: World, feed: Feed):
    """It writes to the database and rings no bell here."""
    _, run = await world.running("one")
    async with aclosing(watch(feed)) as stream:
        waiting = asyncio.create_task(change(stream))
        await live(feed)
        bell = world.tools.db.bell
        world.tools.db.bell = type(bell)()
        await world.report(run, progress(2))
        assert (await waiting).training_job.progress.step == 2


async def test_watchers_that_come_and_go_while_jobs_change_miss_nothing(world: World, feed: Feed):
    _, run = await world.running("one")
    tokens = asyncio.Queue[str]()

    async def read_some(token: str, first: int, count: int) -> str:
        async with aclosing(watch(feed, token=token)) as stream:
            steps = []
            for _ in range(count):
                event = await change(stream)
                token = event.resume_token
                steps.append(event.training_job.progress.step)
        assert steps == list(range(first, first + count))
        return token

    async with aclosing(watch(feed)) as stream:
        while (event := await anext(stream)).snapshot:
            pass
        tokens.put_nowait(event.resume_token)

    async def write() -> None:
        for step in range(2, 62):
            await world.report(run, progress(step))

    async def read() -> None:
        token = await tokens.get()
        for place in range(20):
            token = await read_some(token, 2 + 3 * place, 3)

    async with asyncio.timeout(60):
        await asyncio.gather(write(), read())


async def test_one_reading_of_the_counts_serves_all_who_watch_a_batch(api: Api, feed: Feed, monkeypatch: pytest.MonkeyPatch):
    await create(api, [item(), item()])
    name, db = BatchName("acme", "night"), api.world.tools.db
    counted = []
    monkeypatch.setattr(watching, "HEARTBEAT_S", 1000)
    real = feed.counted

    async def counting(uid, seq, read):
        async def one():
            counted.append(seq)
            return await read()

        return await real(uid, seq, one)

    monkeypatch.setattr(feed, "counted", counting)

    async def told(stream) -> int:
        while not (event := await anext(stream)).HasField("batch") or not event.HasField("training_job"):
            pass
        return {count.state: count.count for count in event.batch.counts}[pb.JOB_STATE_CANCELLED]

    async with AsyncExitStack() as open_streams:
        streams = [await open_streams.enter_async_context(aclosing(watch_batch(db, name, "", feed))) for _ in range(20)]
        for stream in streams:
            while not (await anext(stream)).HasField("batch"):
                pass
        waiting = [asyncio.create_task(told(stream)) for stream in streams]
        async with api.world.tools.db.snapshot() as tx:
            uid = (await events.after(tx, 0, limit=1))[0][1].batch_uid
        await live(feed, Scope(tenant="acme", batch_uid=uid or ""))
        counted.clear()
        await api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="tenants/acme/jobs/night-00000"))
        async with asyncio.timeout(20):
            assert await asyncio.gather(*waiting) == [1] * 20
    assert len(counted) == 1


async def test_a_database_that_stays_away_ends_watches_with_an_error_to_resume_from(world: World, feed: Feed, monkeypatch):
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.02)
    await world.running("one")

    async def away():
        raise OperationalError("SELECT", {}, Exception("the server closed the connection"))

    async with aclosing(watch(feed)) as stream:
        waiting = asyncio.create_task(change(stream))
        await live(feed)
        monkeypatch.setattr(feed, "_read_once", away)
        with pytest.raises(Unavailable) as ended:
            await waiting
    assert ended.value.reason == "DATABASE_UNREACHABLE"
