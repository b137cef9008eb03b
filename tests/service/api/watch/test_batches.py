"""WatchBatch: every change of a batch's jobs, and its counts with those that changed them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from lorafleet.errors import InvalidInput, NotFound
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.api.watch import jobs as watching
from service.api.watch import resume_tokens
from service.api.watch.batches import watch_batch
from service.api.watch.feed import Feed
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import BatchName
from tests.service.api.batch_requests import create, item
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.streams import begun
from tests.service.world import progress, succeeded

NIGHT = BatchName("acme", "night")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.02)


class Reader:
    """One watcher, read event by event with a deadline."""

    def __init__(self, api: Api, token: str = "", name: BatchName = NIGHT) -> None:
        db = api.world.tools.db
        self._events = begun(watch_batch(db, name, token, Feed(db, asyncio.Event())))

    async def next(self) -> pb.WatchBatchResponse:
        async with asyncio.timeout(10):
            return await anext(self._events)

    async def change(self) -> pb.WatchBatchResponse:
        while not (event := await self.next()).HasField("training_job"):
            pass
        return event

    async def snapshot(self) -> list[pb.WatchBatchResponse]:
        """All up to the heartbeat that ends it; that one is last."""
        found = [await self.next()]
        while found[-1].snapshot:
            found.append(await self.next())
        return found


def counts(event: pb.WatchBatchResponse) -> dict[str, int]:
    return {jobs_pb.JobState.Name(count.state).removeprefix("JOB_STATE_"): count.count for count in event.batch.counts}


def state(event: pb.WatchBatchResponse) -> tuple[int, str]:
    job = event.training_job
    return job.batch_index, jobs_pb.JobState.Name(job.state).removeprefix("JOB_STATE_")


async def test_a_snapshot_in_the_order_of_the_items_then_the_counts(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "BATCH", 2)
    await create(api, [item() for _ in range(5)])
    *jobs, heartbeat = await Reader(api).snapshot()
    assert [state(event) for event in jobs] == [(index, "QUEUED") for index in range(5)]
    assert all(event.training_job.batch == str(NIGHT) and not event.HasField("batch") for event in jobs)
    assert (heartbeat.HasField("training_job"), counts(heartbeat)) == (False, {"QUEUED": 5})


async def test_changes_carry_the_counts_that_they_made_and_no_others(api: Api):
    await create(api, [item()])
    reader = Reader(api)
    await reader.snapshot()
    await api.world.settle()
    run = api.world.backend.launches[0]
    admitted, starting = await reader.change(), await reader.change()
    told = [counts(event) for event in (admitted, starting) if event.HasField("batch")]
    assert told in ([{"STARTING": 1}], [{"ADMITTED": 1}, {"STARTING": 1}]), "once where they are as they will be already"
    await api.world.report(run, progress(1))
    assert counts(await reader.change()) == {"RUNNING": 1}
    await api.world.report(run, progress(2))
    assert not (await reader.change()).HasField("batch"), "the counts are as they were"
    await api.world.report(run, succeeded())
    ended = await reader.change()
    assert (counts(ended), ended.batch.HasField("end_time")) == ({"SUCCEEDED": 1}, True)


async def test_every_heartbeat_carries_the_counts(api: Api):
    await create(api, [item(), item()])
    reader = Reader(api)
    await reader.snapshot()
    for _ in range(2):
        beat = await reader.next()
        assert (beat.HasField("training_job"), counts(beat)) == (False, {"QUEUED": 2})


async def test_nothing_is_told_of_other_jobs(api: Api):
    await create(api, [item()])
    reader = Reader(api)
    await reader.snapshot()
    await create(api, [item()], batch_id="other")
    await api.world.jobs.cancel(await api.world.submit("lone"))
    await api.batches.CancelBatch(pb.CancelBatchRequest(name=str(NIGHT)))
    assert state(await reader.change()) == (0, "CANCELLED")


async def test_a_watch_goes_on_after_any_event_without_gap_or_double(api: Api):
    await create(api, [item()])
    reader = Reader(api)
    tokens = [(await reader.snapshot())[-1].resume_token]
    await api.world.settle()
    run = api.world.backend.launches[0]
    for step in range(1, 4):
        await api.world.report(run, progress(step))
    whole = []
    for _ in range(5):
        event = await reader.change()
        whole.append(event.training_job)
        tokens.append(event.resume_token)
    for place, token in enumerate(tokens[:-1]):
        again = Reader(api, token)
        assert [(await again.change()).training_job for _ in whole[place:]] == whole[place:]


async def test_a_thousand_changes_are_told_once_each(api: Api):
    await create(api, [item() for _ in range(1000)])
    reader = Reader(api)
    assert len(await reader.snapshot()) == 1001
    await api.batches.CancelBatch(pb.CancelBatchRequest(name=str(NIGHT)))
    told = [state(await reader.change()) for _ in range(1000)]
    assert sorted(told) == [(index, "CANCELLED") for index in range(1000)]
    assert counts(await reader.next()) == {"CANCELLED": 1000}


async def test_tokens_are_good_for_their_batch_alone(api: Api):
    await create(api, [item()])
    await create(api, [item()], batch_id="other")
    token = (await Reader(api).snapshot())[-1].resume_token
    with pytest.raises(InvalidInput):
        await Reader(api, token, BatchName("acme", "other")).next()
    with pytest.raises(InvalidInput):
        resume_tokens.values(Scope(tenant="acme"), token)


async def test_an_unknown_batch_is_not_found(api: Api):
    with pytest.raises(NotFound):
        await Reader(api).next()


async def test_it_is_served_until_the_server_stops(api: Api):
    await create(api, [item()])
    stream = aiter(api.batches.WatchBatch(pb.WatchBatchRequest(name=str(NIGHT))))
    async with asyncio.timeout(10):
        assert state(await anext(stream)) == (0, "QUEUED")
        api.stopping.set()
        answer = await refusal(_rest(stream))
    assert (answer.code, answer.reason) == ("UNAVAILABLE", "SERVER_STOPPING")


async def _rest(stream: AsyncIterator[pb.WatchBatchResponse]) -> list[pb.WatchBatchResponse]:
    return [event async for event in stream]
