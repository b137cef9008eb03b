"""Serves WatchAdapters: a snapshot, then everything that happens to adapters in commit order, with heartbeats between; resumable by token.

Events of adapters are few. While anyone watches on a replica one reader follows them for all tenants, and keeps the newest; a watcher is a
position among them, and reads the log itself where they do not reach back so far.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.struct_pb2 import Struct

from lorafleet.backoff import doubled_s
from lorafleet.errors import NotFound, TokenExpired, Unavailable
from lorafleet.v1 import adapter_service_pb2 as pb
from service.api.watch import resume_tokens
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import invalid, parse_adapter, parse_tenant
from service.core.wakeups import Bell, heard
from service.db import adapter_events, adapters, aliases, events
from service.db.database import Database
from service.db.registry_models import AdapterRow
from service.db.transaction import Transaction
from service.db.webhook_models import AdapterEventRow
from service.registry.messages import adapter_message
from service.tenancy.messages import time

EVERYTHING = "*"
HEARTBEAT_S = 5.0
POLL_S, MAX_POLL_S = 0.5, 8.0
READ = 200  # events, or adapters, at a time
MAX_KEPT = 2000
GIVE_UP_AFTER = 8  # failed reads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Happened:
    """An event, and its adapter as it was when that was read."""

    seq: int
    tenant: str
    adapter_id: str
    event: pb.AdapterEvent
    adapter: pb.Adapter


@dataclass
class AdapterFeed:
    """The reader. It runs while there are watchers."""

    db: Database
    stopping: asyncio.Event
    seq: int = -1  # read up to here; -1: nothing yet
    since: int = 0  # what came after it is kept
    failures: int = 0
    bell: Bell = field(default_factory=Bell)
    _kept: deque[Happened] = field(default_factory=deque[Happened])
    _num_watchers: int = 0
    _reader: asyncio.Task[None] | None = None

    @contextmanager
    def joined(self) -> Generator[None]:
        """Keeps it reading."""
        self._num_watchers += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._num_watchers -= 1
            if not self._num_watchers:
                self._rest()

    def after(self, seq: int) -> Sequence[Happened] | None:
        """What came after `seq`, oldest first; None if that is not kept."""
        if self.seq < 0 or seq < self.since:
            return None
        return [each for each in self._kept if each.seq > seq]

    def check_open(self) -> None:
        """Raises Unavailable."""
        if self.stopping.is_set():
            raise Unavailable("the server is stopping; resume with the last token", reason="SERVER_STOPPING")
        if self.failures >= GIVE_UP_AFTER:
            raise Unavailable("the database does not answer; resume with the last token", reason="DATABASE_UNREACHABLE")

    def _rest(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        self._reader, self.seq, self.failures = None, -1, 0
        self._kept.clear()

    async def _read(self) -> None:
        while True:
            rung = self.db.bell.listen()
            try:
                more = await self._read_once()
                self.failures = 0
            except Exception as error:
                more = False
                self.failures += 1
                log.warning("the feed of adapters cannot read (%d times now): %s", self.failures, error)
            if self.stopping.is_set() or self.failures >= GIVE_UP_AFTER:
                self.bell.ring()
            if not more:
                await heard(rung, doubled_s(POLL_S, MAX_POLL_S, self.failures))

    async def _read_once(self) -> bool:
        async with self.db.snapshot() as tx:
            last_seq = (await events.service(tx)).last_seq
            is_first = self.seq < 0
            if is_first:
                self.seq = self.since = last_seq
            found: Sequence[AdapterEventRow] = ()
            if self.seq < last_seq:
                found = await adapter_events.after_in_all(tx, self.seq, limit=READ)
            happened = await with_adapters(tx, found)
        self._kept.extend(happened)
        self.seq = found[-1].seq if len(found) == READ else last_seq
        while len(self._kept) > MAX_KEPT:
            self.since = self._kept.popleft().seq
        if happened or is_first:
            self.bell.ring()
        return len(found) == READ


@dataclass
class AdapterWatch:
    """One watcher."""

    db: Database
    scope: Scope
    feed: AdapterFeed
    instance: str = ""
    seq: int = 0

    async def events(self, resume_token: str) -> AsyncGenerator[pb.WatchAdaptersResponse]:
        """Endless. Raises TokenExpired, InvalidInput, NotFound, and Unavailable when the server stops."""
        if await self._begin(resume_token):
            async for adapter in self._snapshot():
                yield pb.WatchAdaptersResponse(adapter=adapter, resume_token=self._token(snapshot=True), snapshot=True)
            yield pb.WatchAdaptersResponse(resume_token=self._token())
        loop = asyncio.get_running_loop()
        spoke = loop.time()
        with self.feed.joined():
            while True:
                ring = self.feed.bell.listen()
                news = await self._next()
                self.feed.check_open()
                if not news and loop.time() - spoke >= HEARTBEAT_S:
                    news = [pb.WatchAdaptersResponse(resume_token=self._token())]
                for response in news:
                    yield response
                    spoke = loop.time()
                if not news:
                    await heard(ring, min(POLL_S if self.feed.seq < 0 else HEARTBEAT_S, HEARTBEAT_S - (loop.time() - spoke)))

    async def _begin(self, token: str) -> bool:
        """Where to continue. True: with a snapshot."""
        async with self.db.snapshot() as tx:
            service = await events.service(tx)
            if self.scope.adapter != EVERYTHING and await adapters.by_name(tx, self.scope.tenant, self.scope.adapter) is None:
                raise NotFound(f"there is no adapter tenants/{self.scope.tenant}/adapters/{self.scope.adapter}", reason="ADAPTER_NOT_FOUND")
        self.instance, self.seq = service.instance, service.last_seq
        if not token:
            return True
        values = resume_tokens.values(self.scope, token)
        if values["instance"] != service.instance or not service.adapter_floor_seq <= values["seq"] <= service.last_seq:
            raise TokenExpired("the resume token is too old; start over without it", reason="RESUME_TOKEN_EXPIRED")
        self.seq = values["seq"]
        return values["snapshot"]

    async def _snapshot(self) -> AsyncIterator[pb.Adapter]:
        """In the order of their ids; what happens meanwhile is told after it."""
        behind: tuple[str] | None = None
        only = [] if self.scope.adapter == EVERYTHING else [AdapterRow.adapter_id == self.scope.adapter]
        while True:
            async with self.db.snapshot() as tx:
                matches = [AdapterRow.delete_time.is_(None), *only]
                rows = await adapters.page(tx, self.scope.tenant, matches, by_id=True, descending=False, behind=behind, size=READ)
                pointing = await aliases.of_adapters(tx, [row.uid for row in rows])
            for row in rows:
                yield adapter_message(row, pointing[row.uid])
            if len(rows) < READ:
                return
            behind = (rows[-1].adapter_id,)

    async def _next(self) -> list[pb.WatchAdaptersResponse]:
        happened = self.feed.after(self.seq)
        upto = self.feed.seq
        if happened is None:
            happened, upto = await self._read()
        mine = [each for each in happened if each.tenant == self.scope.tenant and self.scope.adapter in (EVERYTHING, each.adapter_id)]
        self.seq = max(self.seq, upto)
        return [pb.WatchAdaptersResponse(adapter=each.adapter, event=each.event, resume_token=self._token(seq=each.seq)) for each in mine]

    async def _read(self) -> tuple[Sequence[Happened], int]:
        """From the log; and how far that reached."""
        async with self.db.snapshot() as tx:
            service = await events.service(tx)
            found = await adapter_events.after(tx, self.scope.tenant, self.seq, limit=READ)
            happened = await with_adapters(tx, found)
        if self.seq < service.adapter_floor_seq:
            raise TokenExpired("the watch has fallen too far behind; start over without a token", reason="RESUME_TOKEN_EXPIRED")
        return happened, found[-1].seq if len(found) == READ else service.last_seq

    def _token(self, *, seq: int | None = None, snapshot: bool = False) -> str:
        return resume_tokens.token(self.scope, self.instance, self.seq if seq is None else seq, snapshot=snapshot)


def scope_of(request: pb.WatchAdaptersRequest) -> Scope:
    """What a request watches. Raises InvalidInput."""
    tenant = parse_tenant(request.parent)
    if not request.name:
        return Scope(tenant=tenant, adapter=EVERYTHING)
    name = parse_adapter(request.name)
    if name.tenant != tenant:
        raise invalid("name", f"is not an adapter of {request.parent}")
    return Scope(tenant=tenant, adapter=name.adapter_id)


async def with_adapters(tx: Transaction, found: Sequence[AdapterEventRow]) -> list[Happened]:
    """The events, each with its adapter as it is now."""
    rows = await adapters.by_ids(tx, {(row.tenant, row.adapter_id) for row in found})
    pointing = await aliases.of_adapters(tx, [row.uid for row in rows])
    messages = {(row.tenant, row.adapter_id): adapter_message(row, pointing[row.uid]) for row in rows}
    return [Happened(row.seq, row.tenant, row.adapter_id, _event(row), messages[row.tenant, row.adapter_id]) for row in found]


def _event(row: AdapterEventRow) -> pb.AdapterEvent:
    data = Struct()
    data.update(row.data)
    adapter = f"tenants/{row.tenant}/adapters/{row.adapter_id}"
    return pb.AdapterEvent(id=f"event-{row.seq}", type=row.kind, time=time(row.time), adapter=adapter, data=data)
