"""A watch that falls behind what the log still holds is told so; it never goes on behind a gap as if there were none."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from lorafleet.errors import TokenExpired
from lorafleet.v1 import training_service_pb2 as pb
from service.api.watch import jobs as watching
from service.api.watch.feed import Feed
from service.api.watch.jobs import Scope, Watch
from service.db import events
from tests.service.streams import begun
from tests.service.world import World


async def test_an_open_watch_that_compaction_overtakes_is_told(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.02)
    seen = begun(Watch(db=world.tools.db, scope=Scope(tenant="acme"), feed=Feed(world.tools.db, asyncio.Event())).events(""))
    async with asyncio.timeout(10):
        assert not (await anext(seen)).HasField("training_job")  # it stands at the beginning, and its reader pauses
        await world.submit("one")
        world.clock.advance(1)
        async with world.tools.db.transaction() as tx:
            await events.compact(tx, world.clock.now())
        with pytest.raises(TokenExpired) as told:
            await _change(seen)
    assert told.value.reason == "RESUME_TOKEN_EXPIRED"


async def _change(events_seen: AsyncIterator[pb.WatchTrainingJobsResponse]) -> None:
    """Reads up to the next event that is no heartbeat."""
    while not (await anext(events_seen)).HasField("training_job"):
        pass
