"""WatchAdapters: the adapters as they are, then everything that happens to them, once and in order, for its own tenant alone."""

import asyncio
from dataclasses import dataclass

import pytest

from lorafleet.errors import InvalidInput, NotFound, TokenExpired, Unavailable
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity
from service.api.watch import adapters as watching
from service.api.watch.adapters import AdapterFeed, AdapterWatch, scope_of
from service.core.resource_names import parse_alias
from service.reconcile.loops import compact_once
from service.registry.aliases import AliasMove, set_alias
from tests.service.registry.made import finished, make_version
from tests.service.streams import begun
from tests.service.world import World

ANN = Identity(principal="ann")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.02)


@dataclass
class Watched:
    """A service whose watchers share a feed."""

    world: World
    feed: AdapterFeed

    def read(self, token: str = "", tenant: str = "acme", name: str = "") -> "Reader":
        request = pb.WatchAdaptersRequest(parent=f"tenants/{tenant}", name=name)
        watch = AdapterWatch(db=self.world.tools.db, scope=scope_of(request), feed=self.feed)
        return Reader(begun(watch.events(token)), self.feed)

    async def move(self, number: int, adapter: str = "fox", tenant: str = "acme") -> None:
        name = parse_alias(f"tenants/{tenant}/adapters/{adapter}@production")
        await set_alias(self.world.tools.db, AliasMove(name=name, number=number), ANN)


class Reader:
    """One watcher, read event by event with a deadline."""

    def __init__(self, events, feed: AdapterFeed) -> None:
        self._events = events
        self._feed = feed

    async def next(self) -> pb.WatchAdaptersResponse:
        async with asyncio.timeout(10):
            return await anext(self._events)

    async def snapshot(self) -> list[str]:
        """Ids of the adapters up to the heartbeat that ends it."""
        ids = []
        while (event := await self.next()).snapshot:
            ids.append(event.adapter.name.rpartition("/")[2])
        return ids

    async def joined(self) -> None:
        """Its snapshot is over, and what comes now is the feed's."""
        await self.snapshot()
        while self._feed.seq < 0:
            await self.next()

    async def change(self) -> pb.WatchAdaptersResponse:
        async with asyncio.timeout(10):  # heartbeats come all the time
            while not (event := await self.next()).HasField("event"):
                pass
        return event


@pytest.fixture
async def watched(world: World) -> Watched:
    for adapter in ("hare", "fox", "fox"):
        await make_version(world.tools.db, adapter)
    await make_version(world.tools.db, "fox", "globex")
    return Watched(world, AdapterFeed(world.tools.db, asyncio.Event()))


async def test_a_snapshot_then_what_happens_in_order(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "READ", 1)
    reader = watched.read()
    assert await reader.snapshot() == ["fox", "hare"]
    await watched.move(1)
    await watched.move(2)
    await finished(watched.world, "new")
    events = [await reader.change() for _ in range(3)]
    assert [event.event.type for event in events] == ["alias.moved", "alias.moved", "version.created"]
    assert (events[0].event.data["version"], events[1].event.data["previous_version"]) == ("tenants/acme/adapters/fox/versions/1", 1)
    assert (events[2].adapter.name, events[2].event.data["job"]) == ("tenants/acme/adapters/new", "tenants/acme/jobs/new")


async def test_many_watchers_see_each_event_once(watched: Watched):
    readers = [watched.read() for _ in range(5)]
    for reader in readers:
        await reader.joined()
    for number in (1, 2, 1):
        await watched.move(number)
    for reader in readers:
        assert [(await reader.change()).event.data["version"][-1] for _ in range(3)] == ["1", "2", "1"]
        assert not (await reader.next()).HasField("event")


async def test_a_watch_goes_on_from_its_token_and_misses_nothing(watched: Watched):
    reader = watched.read()
    await reader.snapshot()
    await watched.move(1)
    token = (await reader.change()).resume_token
    await watched.move(2)
    await watched.move(1)
    again = watched.read(token)
    assert [(await again.change()).event.data["version"][-1] for _ in range(2)] == ["2", "1"]


async def test_a_heartbeats_token_goes_on_too(watched: Watched):
    reader = watched.read()
    await reader.snapshot()
    token = (await reader.next()).resume_token
    await watched.move(1)
    assert (await watched.read(token).change()).event.type == "alias.moved"


async def test_another_tenants_and_another_adapters_events_are_not_told(watched: Watched):
    every, hare, theirs = watched.read(), watched.read(name="tenants/acme/adapters/hare"), watched.read(tenant="globex")
    for each in (every, hare, theirs):
        await each.joined()
    await watched.move(1, "fox", "globex")
    await watched.move(1, "fox")
    await watched.move(1, "hare")
    assert [(await every.change()).event.adapter for _ in range(2)] == ["tenants/acme/adapters/fox", "tenants/acme/adapters/hare"]
    assert (await hare.change()).event.adapter == "tenants/acme/adapters/hare"
    assert (await theirs.change()).event.adapter == "tenants/globex/adapters/fox"


async def test_a_snapshot_is_of_what_is_watched(watched: Watched):
    every, hare, theirs = watched.read(), watched.read(name="tenants/acme/adapters/hare"), watched.read(tenant="globex")
    assert [await each.snapshot() for each in (every, hare, theirs)] == [["fox", "hare"], ["hare"], ["fox"]]


async def test_tokens_of_other_watches_and_old_ones_are_refused(watched: Watched):
    reader = watched.read()
    await reader.snapshot()
    token = (await reader.next()).resume_token
    for other in (watched.read(token, tenant="globex"), watched.read(token, name="tenants/acme/adapters/fox")):
        with pytest.raises(InvalidInput):
            await other.next()
    await watched.move(1)
    watched.world.clock.advance(2 * 24 * 3600)
    await compact_once(watched.world.tools)
    with pytest.raises(TokenExpired):
        await watched.read(token).next()


async def test_an_adapter_that_is_not_there_is_not_found(watched: Watched):
    with pytest.raises(NotFound):
        await watched.read(name="tenants/acme/adapters/wolf").next()
    with pytest.raises(InvalidInput):
        watched.read(name="tenants/globex/adapters/fox")


async def test_a_watch_ends_when_the_server_stops(watched: Watched):
    reader = watched.read()
    await reader.snapshot()
    watched.feed.stopping.set()
    watched.world.tools.db.bell.ring()
    with pytest.raises(Unavailable, match="resume with the last token"):
        await reader.change()


async def test_a_watcher_behind_what_is_kept_reads_the_log(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "MAX_KEPT", 1)
    slow, quick = watched.read(), watched.read()
    for reader in (slow, quick):
        await reader.joined()
    for number in (1, 2, 1, 2):
        await watched.move(number)
        await quick.change()
    assert [(await slow.change()).event.data["version"][-1] for _ in range(4)] == ["1", "2", "1", "2"]
