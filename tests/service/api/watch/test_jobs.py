"""WatchTrainingJobs: a snapshot, then every change once and in order, across disconnects and restarts."""

import asyncio

import pytest

from lorafleet.errors import InvalidInput, TokenExpired, Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.api.watch import feed as feeding
from service.api.watch import jobs as watching
from service.api.watch import resume_tokens
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from service.db import events
from tests.service.streams import begun
from tests.service.world import World, progress, succeeded

ALL = Scope(tenant="acme")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(feeding, "POLL_S", 0.01)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.02)


class Reader:
    """One watcher, read event by event with a deadline."""

    def __init__(self, world: World, scope: Scope = ALL, token: str = "", feed: Feed | None = None) -> None:
        self._watch = Watch(db=world.tools.db, scope=scope, feed=feed or Feed(world.tools.db, asyncio.Event()))
        self._events = begun(self._watch.events(token))

    async def next(self) -> pb.WatchTrainingJobsResponse:
        async with asyncio.timeout(10):
            return await anext(self._events)

    async def change(self) -> pb.WatchTrainingJobsResponse:
        """The next event that is no heartbeat."""
        while not (event := await self.next()).HasField("training_job"):
            pass
        return event

    async def snapshot(self) -> list[pb.WatchTrainingJobsResponse]:
        """All up to the heartbeat that ends it; that one is last."""
        found = [await self.next()]
        while found[-1].snapshot:
            found.append(await self.next())
        return found

    def stop(self) -> None:
        self._watch.feed.stopping.set()


def shown(event: pb.WatchTrainingJobsResponse) -> tuple[str, str, int]:
    job = event.training_job
    return job.name.rsplit("/", 1)[-1], pb.JobState.Name(job.state).removeprefix("JOB_STATE_"), job.progress.step


async def test_a_snapshot_then_every_change_in_order(world: World):
    name = await world.submit("one")
    reader = Reader(world)
    *jobs, heartbeat = await reader.snapshot()
    assert [shown(event) for event in jobs] == [("one", "QUEUED", 0)]
    assert not heartbeat.HasField("training_job")

    await world.settle()
    run = world.backend.launches[0]
    for step in (1, 2):
        await world.report(run, progress(step))
    await world.report(run, succeeded())
    states = [shown(await reader.change()) for _ in range(5)]
    assert states == [("one", "ADMITTED", 0), ("one", "STARTING", 0), ("one", "RUNNING", 1), ("one", "RUNNING", 2), ("one", "SUCCEEDED", 2)]
    assert (await world.job(name)).spec.adapter.rank == 16


async def test_every_event_carries_the_spec_and_the_attempts(world: World):
    reader = Reader(world)
    await reader.snapshot()
    await world.started("one")
    events_seen = [await reader.change() for _ in range(3)]
    assert all(event.training_job.spec.adapter.rank == 16 for event in events_seen)
    assert [attempt.number for attempt in events_seen[-1].training_job.attempts] == [1]


async def test_a_watch_goes_on_after_any_event_without_gap_or_double(world: World):
    reader = Reader(world)
    token = (await reader.snapshot())[-1].resume_token
    _, run = await world.started("one")
    for step in range(1, 6):
        await world.report(run, progress(step))
    whole, tokens = [], [token]
    for _ in range(8):
        event = await reader.change()
        whole.append(shown(event))
        tokens.append(event.resume_token)
    for place, token in enumerate(tokens[:-1]):
        again = Reader(world, token=token)  # another connection, or another server on the same database
        assert [shown(await again.change()) for _ in whole[place:]] == whole[place:]


async def test_heartbeats_advance_the_token_past_what_is_not_shown(world: World):
    reader = Reader(world, Scope(tenant="other"))
    await reader.snapshot()
    before = (await reader.next()).resume_token
    await world.submit()
    while (await reader.next()).resume_token == before:
        pass
    after = (await reader.next()).resume_token
    async with world.tools.db.transaction() as tx:
        world.clock.advance(1)
        await events.compact(tx, world.clock.now())
    assert not (await Reader(world, Scope(tenant="other"), after).next()).HasField("training_job")
    with pytest.raises(TokenExpired):
        await Reader(world, Scope(tenant="other"), before).next()


async def test_a_token_from_within_a_snapshot_begins_it_anew(world: World):
    for place in range(3):
        await world.submit(f"job-{place}")
    half = await Reader(world).next()
    again = await Reader(world, token=half.resume_token).snapshot()
    assert len(again) == 4


async def test_a_long_snapshot_shows_a_job_that_changes_meanwhile_once_for_each_version(world: World, monkeypatch):
    monkeypatch.setattr(watching, "BATCH", 2)
    names = []
    for place in range(5):
        names.append(await world.submit(f"job-{place}"))
        world.clock.advance(1)
    reader = Reader(world)
    first = await reader.next()
    await world.jobs.cancel(names[4])
    rest = await reader.snapshot()
    assert [shown(event) for event in [first, *rest[:-1]]][-1] == ("job-4", "CANCELLED", 0)
    await world.jobs.cancel(names[0])
    assert shown(await reader.change()) == ("job-0", "CANCELLED", 0), "job-4 was shown as it is"


async def test_one_job_can_be_watched(world: World):
    await world.submit("one")
    two = await world.submit("two")
    reader = Reader(world, Scope(tenant="acme", job_id="two"))
    assert [shown(event)[0] for event in (await reader.snapshot())[:-1]] == ["two"]
    await world.settle()
    await world.jobs.cancel(two)
    assert shown(await reader.change())[0] == "two"


@pytest.mark.parametrize("scope", [Scope(tenant="other"), Scope(tenant="acme", job_id="one")])
async def test_a_token_of_another_watch_is_refused(world: World, scope: Scope):
    await world.submit("one")
    token = (await Reader(world).next()).resume_token
    with pytest.raises(InvalidInput):
        await Reader(world, scope, token).next()


@pytest.mark.parametrize("token", ["x", "é", "AAAAAAAAAAAAAAAA"])
async def test_a_bad_token_is_refused(world: World, token: str):
    with pytest.raises(InvalidInput) as refused:
        await Reader(world, token=token).next()
    assert refused.value.reason == "BAD_RESUME_TOKEN"


async def test_a_token_of_another_database_has_expired(world: World):
    with pytest.raises(TokenExpired) as expired:
        await Reader(world, token=resume_tokens.token(ALL, "another", 0)).next()
    assert expired.value.reason == "RESUME_TOKEN_EXPIRED"


async def test_a_server_that_stops_ends_its_watches_with_an_error_to_resume_from(world: World):
    reader = Reader(world)
    await reader.snapshot()
    reader.stop()
    with pytest.raises(Unavailable):
        await reader.change()
