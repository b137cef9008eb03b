"""Serves the Watch calls of jobs and other work: a snapshot, then every change in commit order, with heartbeats; resumable by token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement

from lorafleet.errors import TokenExpired, Unavailable
from service.api.watch import resume_tokens
from service.api.watch.feed import Feed, Topic
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import JobName
from service.core.wakeups import heard
from service.db import attempts, batches, events, job_pages, jobs
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobEventRow, JobRow
from service.db.transaction import Transaction
from service.jobs import kinds
from service.jobs.jobs import not_found
from service.jobs.kinds import Wire

HEARTBEAT_S = 5.0
POLL_S = 1.0  # while the watch reads for itself
BATCH = 100


@dataclass
class Watch:
    """One watcher. `seen` holds the versions that the snapshot has shown, until the events have caught up with it.

    It takes changes from the feed that all share, and reads the events itself where that does not reach back so far.
    """

    db: Database
    scope: Scope
    feed: Feed
    instance: str = ""
    seq: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    seen_until: int = 0

    async def events(self, resume_token: str) -> AsyncGenerator[Any]:
        """Answers of the scope's kind, endlessly. Raises TokenExpired, InvalidInput, NotFound, and Unavailable when the server stops."""
        async with aclosing(self.moments(resume_token)) as moments:  # a watch that ends leaves the feed at once
            async for events_of_a_moment in moments:
                for event in events_of_a_moment:
                    yield event

    async def moments(self, resume_token: str) -> AsyncGenerator[Sequence[Any]]:
        """The same events in groups that were read together; a heartbeat comes alone."""
        if await self._begin(resume_token):
            async for page in self._snapshot():
                yield page
            yield [self._heartbeat()]
        with self.feed.topic(self.scope) as topic:
            async with aclosing(self._changes(topic)) as changes:
                async for moment in changes:
                    yield moment

    async def _changes(self, topic: Topic) -> AsyncGenerator[Sequence[Any]]:
        loop = asyncio.get_running_loop()
        spoke = loop.time()
        while True:
            ring = topic.bell.listen()
            news = await self._next(topic)
            self._check_open()
            if not news and loop.time() - spoke >= HEARTBEAT_S:
                news = [self._heartbeat()]
            if news:
                yield news
                spoke = loop.time()
            else:
                quiet_s = HEARTBEAT_S - (loop.time() - spoke)
                await heard(ring, quiet_s if self.seq >= topic.since else min(quiet_s, POLL_S))

    def _check_open(self) -> None:
        if self.feed.stopping.is_set():
            raise Unavailable("the server is stopping; resume with the last token", reason="SERVER_STOPPING")
        if self.feed.is_broken:
            raise Unavailable("the database does not answer; resume with the last token", reason="DATABASE_UNREACHABLE")

    async def _begin(self, token: str) -> bool:
        """Where to continue. True: with a snapshot."""
        async with self.db.snapshot() as tx:
            service = await events.service(tx)
            if self.scope.job_id and await jobs.by_name(tx, self.scope.tenant, self.scope.job_id) is None:
                raise not_found(JobName(self.scope.tenant, self.scope.job_id))
        self.instance, self.seq = service.instance, service.last_seq
        if not token:
            return True
        values = resume_tokens.values(self.scope, token)
        if values["instance"] != service.instance or not service.floor_seq <= values["seq"] <= service.last_seq:
            raise TokenExpired("the resume token is too old; start over without it", reason="RESUME_TOKEN_EXPIRED")
        self.seq = values["seq"]
        return values["snapshot"]

    async def _snapshot(self) -> AsyncIterator[Sequence[Any]]:
        behind: JobRow | None = None
        from_start = self._token(snapshot=True)  # a half-read snapshot cannot be resumed
        while True:
            async with self.db.snapshot() as tx:
                rows = await self._page(tx, behind)
                runs = await attempts.of_jobs(tx, [row.uid for row in rows])
                self.seen_until = (await events.service(tx)).last_seq
            if not rows:
                return
            self.seen |= {row.uid: row.version for row in rows}
            yield [self._wire.watched(self._wire.message(row, runs[row.uid]), from_start, snapshot=True) for row in rows]
            behind = rows[-1]

    async def _page(self, tx: Transaction, behind: JobRow | None) -> Sequence[JobRow]:
        """Oldest first; a batch's in the order of its items."""
        scope = self.scope
        if scope.batch_uid:
            index = -1 if behind is None or behind.batch_index is None else behind.batch_index
            return await batches.jobs_page(tx, scope.batch_uid, behind=index, size=BATCH)
        only = [JobRow.job_id == scope.job_id] if scope.job_id else [JobRow.kind == scope.kind]
        key = None if behind is None else PageKey(behind.create_time, behind.uid)
        return await job_pages.page(tx, scope.tenant, only, newest_first=False, behind=key, size=BATCH)

    async def _next(self, topic: Topic) -> list[Any]:
        changes = topic.after(self.seq, BATCH)
        if changes is None:
            return await self._read()
        news = [self.feed.answer(change, self.scope) for change in changes if change.version > self.seen.get(change.job_uid, 0)]
        self._come_to(changes[-1].seq if len(changes) == BATCH else max(self.seq, self.feed.seq))
        return news

    async def _read(self) -> list[Any]:
        async with self.db.snapshot() as tx:
            found = await events.after(tx, self.seq, *self._which(), limit=BATCH)
            last_seq = (await events.service(tx)).last_seq
            floor_seq = (await events.service(tx)).floor_seq
        if self.seq < floor_seq:
            raise TokenExpired("the watch has fallen too far behind; start over without a token", reason="RESUME_TOKEN_EXPIRED")
        answer = [self._response(event, job) for event, job in found if event.version > self.seen.get(event.job_uid, 0)]
        self._come_to(found[-1][0].seq if len(found) == BATCH else last_seq)
        return answer

    def _come_to(self, seq: int) -> None:
        self.seq = seq
        if seq >= self.seen_until:
            self.seen.clear()

    def _which(self) -> list[ColumnElement[bool]]:
        which = [JobEventRow.tenant == self.scope.tenant, JobRow.kind == self.scope.kind]
        if self.scope.batch_uid:
            which.append(JobRow.batch_uid == self.scope.batch_uid)
        if self.scope.job_id:
            which.append(JobRow.job_id == self.scope.job_id)
        return which

    @property
    def _wire(self) -> Wire:
        return kinds.of(self.scope.kind)

    def _response(self, event: JobEventRow, job: JobRow) -> Any:
        message = self._wire.read(event.payload)
        self._wire.add_spec(message, job)
        return self._wire.watched(message, self._token(seq=event.seq))

    def _heartbeat(self) -> Any:
        return self._wire.watched(None, self._token())

    def _token(self, *, seq: int | None = None, snapshot: bool = False) -> str:
        return resume_tokens.token(self.scope, self.instance, self.seq if seq is None else seq, snapshot=snapshot)
