"""Reads the event log for all watchers of a replica: a change is read and built once, however many receive it.

A topic is what some watchers watch. Nothing is kept for a watcher: each knows how far it has come, and takes what is behind
that from its topic. What came before the topic, or has left it, it reads from the database itself, as a watch that resumes
from further back does: the memory that changes take has one bound for all.
"""

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from lorafleet.backoff import doubled_s
from lorafleet.v1 import batch_service_pb2 as batch_pb
from service.api.watch import resume_tokens
from service.api.watch.resume_tokens import Scope
from service.core.wakeups import Bell
from service.db import events
from service.db.database import Database
from service.db.models import JobEventRow, JobRow
from service.jobs import kinds

MAX_POLL_S = 8.0  # after failed reads
POLL_S = 0.5  # another process may write to the same database without waking us
READ = 200  # events per read
MAX_CHANGES = 4000
MAX_BYTES = 64 * 2**20
MAX_SPECS = 500
GIVE_UP_AFTER = 8  # failed reads, the pauses between them growing: about half a minute

log = logging.getLogger(__name__)


@dataclass
class Change:
    """One event: the job after it, and the responses built from it, one per topic that it belongs to."""

    seq: int
    job_uid: str
    version: int
    kind: str
    job: Any  # the message of its kind
    topics: list["Topic"]
    answers: dict[Scope, Any] = field(default_factory=dict[Scope, Any])

    @property
    def size_bytes(self) -> int:
        return self.job.ByteSize() * (1 + len(self.topics))


@dataclass
class Topic:
    """The changes of one scope after `since`; infinite while nothing was read for it yet."""

    scope: Scope
    since: float = math.inf
    changes: deque[Change] = field(default_factory=deque)
    bell: Bell = field(default_factory=Bell)
    num_watchers: int = 0

    def after(self, seq: int, limit: int) -> Sequence[Change] | None:
        """The oldest changes after `seq`; None if the topic does not reach back that far."""
        if seq < self.since:
            return None
        newer = list(takewhile(lambda change: change.seq > seq, reversed(self.changes)))
        return newer[::-1][:limit]


@dataclass
class Feed:
    """The reader. It runs while there are watchers."""

    db: Database
    stopping: asyncio.Event
    seq: int = 0  # read up to here
    instance: str = ""
    failures: int = 0
    _topics: dict[Scope, Topic] = field(default_factory=dict)
    _kept: deque[Change] = field(default_factory=deque)
    _kept_bytes: int = 0
    _specs: OrderedDict[str, Any] = field(default_factory=OrderedDict[str, Any])
    _counts: dict[str, tuple[int, asyncio.Task[batch_pb.Batch]]] = field(default_factory=dict)
    _joined: asyncio.Event = field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None

    @contextmanager
    def topic(self, scope: Scope) -> Generator[Topic]:
        """The topic of a scope, for as long as it is held."""
        topic = self._topics.setdefault(scope, Topic(scope))
        topic.num_watchers += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        self._joined.set()
        try:
            yield topic
        finally:
            topic.num_watchers -= 1
            if not topic.num_watchers:
                del self._topics[scope]
                self._counts.pop(scope.batch_uid, None)
            if not self._topics:
                self._rest()

    @property
    def is_broken(self) -> bool:
        """The database has been unreachable for so long that watchers should try another replica."""
        return self.failures >= GIVE_UP_AFTER

    def answer(self, change: Change, scope: Scope) -> Any:
        """The response for watchers of the scope. It is shared by all of them: do not modify it."""
        if scope not in change.answers:
            token = resume_tokens.token(scope, self.instance, change.seq)
            change.answers[scope] = kinds.of(change.kind).watched(change.job, token)
        return change.answers[scope]

    async def counted(self, batch_uid: str, seq: int, read: Callable[[], Coroutine[Any, Any, batch_pb.Batch]]) -> batch_pb.Batch:
        """The batch with its counts, which only events change: read once for all watchers that have reached `seq`."""
        known_seq, reading = self._counts.get(batch_uid, (-1, None))
        if reading is None or known_seq != seq or (reading.done() and (reading.cancelled() or reading.exception())):
            reading = asyncio.create_task(read())
            self._counts[batch_uid] = (seq, reading)
        return await asyncio.shield(reading)

    def _rest(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        self._reader, self.failures, self._kept_bytes = None, 0, 0
        self._kept.clear()

    async def _read(self) -> None:
        while True:
            rung, self._joined = self.db.bell.listen(), asyncio.Event()
            try:
                more = await self._read_once()
                self.failures = 0
            except Exception as error:
                more = False
                self.failures += 1
                log.warning("the feed of changes cannot read (%d times now): %s", self.failures, error)
            if self.stopping.is_set() or self.is_broken:
                self._ring_all()
            if not more:
                await self._pause(rung, doubled_s(POLL_S, MAX_POLL_S, self.failures))

    async def _pause(self, rung: asyncio.Event, most_s: float) -> None:
        """Until the bell rings, a topic is joined, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (rung, self._joined)]
        try:
            await asyncio.wait(waits, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _read_once(self) -> bool:
        """Reads on. True when there may be more."""
        topics = list(self._topics.values())  # one that joins while we read may have missed what we did not ask for
        tenants = {topic.scope.tenant for topic in topics}
        async with self.db.snapshot() as tx:
            service = await events.service(tx)
            if not self.instance or self.seq < service.floor_seq:
                self._begin(service.instance, service.last_seq)
            found: Sequence[tuple[JobEventRow, JobRow]] = ()
            if self.seq < service.last_seq:
                found = await events.after(tx, self.seq, JobEventRow.tenant.in_(tenants), limit=READ)
        for topic in topics:
            topic.since = min(topic.since, self.seq)
        for event, job in found:
            self._keep(event, job)
        more = len(found) == READ
        self.seq = found[-1][0].seq if more else service.last_seq
        return more

    def _begin(self, instance: str, seq: int) -> None:
        """Starts over from here; watchers further behind read the database."""
        self.instance, self.seq = instance, seq
        self._kept.clear()
        self._kept_bytes = 0
        for topic in self._topics.values():
            topic.changes.clear()
            topic.since = math.inf

    def _keep(self, event: JobEventRow, job: JobRow) -> None:
        scopes = [Scope(tenant=job.tenant, kind=job.kind), Scope(tenant=job.tenant, job_id=job.job_id, kind=job.kind)]
        if job.batch_uid:
            scopes.append(Scope(tenant=job.tenant, batch_uid=job.batch_uid))
        topics = [self._topics[scope] for scope in scopes if scope in self._topics]
        if not topics:
            return
        message = kinds.of(job.kind).read(event.payload)
        message.MergeFrom(self._asked(job))
        change = Change(event.seq, event.job_uid, event.version, job.kind, message, topics)
        self._kept.append(change)
        self._kept_bytes += change.size_bytes
        for topic in topics:
            topic.changes.append(change)
            topic.bell.ring()
        while len(self._kept) > MAX_CHANGES or self._kept_bytes > MAX_BYTES:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._kept.popleft()
        self._kept_bytes -= oldest.size_bytes
        for topic in oldest.topics:
            topic.changes.popleft()
            topic.since = oldest.seq

    def _asked(self, job: JobRow) -> Any:
        """A job's spec never changes, and its changes come one after another: a message of that alone."""
        if job.uid not in self._specs:
            message = kinds.of(job.kind).read(b"")
            kinds.of(job.kind).add_spec(message, job)
            self._specs[job.uid] = message
            if len(self._specs) > MAX_SPECS:
                self._specs.popitem(last=False)
        return self._specs[job.uid]

    def _ring_all(self) -> None:
        for topic in self._topics.values():
            topic.bell.ring()
