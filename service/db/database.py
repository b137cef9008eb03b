"""Opens the database and hands out transactions, on SQLite and on PostgreSQL.

SQLite's writers are serialized. PostgreSQL's run beside each other, READ COMMITTED: what they change they lock first
(`Transaction.locked`), so that none overwrites what it has not seen.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import QueuePool

from service.core import telemetry
from service.core.clock import Clock, FollowingClock, StepWatch
from service.core.wakeups import Bell
from service.db import adapters, clock_steps, errors, events
from service.db.engines import READING, WRITING
from service.db.transaction import JobEvent, Transaction

CHANNEL = "lorafleet"  # of PostgreSQL's NOTIFY: rings the bells of the other replicas
_ONLY_SHOWN = ":shown"  # ends the notice of a commit that no loop acts on
TRANSACTION_S = 60.0  # one that takes longer has lost its connection, whatever that looks like from here
CLOSE_WITHIN_S = 5.0
LOOK_EVERY_S = 0.01
CHECK_WITHIN_S = 2.0
TELL_FOR_S = 15.0
TRY_AGAIN_S = 3.0  # after a write that met a full disk or a lock
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, clock_carried_us FROM service")

log = logging.getLogger(__name__)


class Database:
    """Transactions on one database. Rings `bell` after each commit that changed something.

    `clock` is the time of every transaction; a FollowingClock is set by PostgreSQL's own, which all replicas share. Should it be
    set to another time, what goes on is carried over that step before the next transaction sees it. `job_event` says what the event
    log keeps of a changed job.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock, bell: Bell, job_event: JobEvent) -> None:
        self.bell = bell
        self.clock = clock
        self.dialect = engine.dialect.name
        self.sender = uuid4().hex[:12]  # what our notifications carry: we need not hear our own
        self._engine = engine
        self._job_event = job_event
        self._trouble: tuple[float, errors.Unwritable] | None = None  # when the newest write failed, and by what; None: it went through
        self._newest_trouble: tuple[float, errors.Unwritable] | None = None  # the same, of the newest that failed: what readiness tells
        self._watch = StepWatch()
        self._carried: timedelta | None = None  # the sum of all steps, as the database says; None: not known yet
        self._carried_at_first: timedelta | None = None
        self._carrying = asyncio.Lock()
        # SQLite has one writer: those of this process queue here in order, not in its busy handler, which is unfair.
        self._writer: AbstractAsyncContextManager[object] = asyncio.Lock() if self.dialect == "sqlite" else nullcontext()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """A transaction that may write. Do nothing slow inside, and nothing outside the database.

        Raises Contended when another came first, Unreachable when the database does not answer, and Unwritable.
        """
        async with telemetry.db_transaction("write"), self._writer, self._noting_trouble(), self._begun(WRITING) as tx:
            yield tx
            await adapters.register(tx, list(tx.succeeded.values()))
            await events.record(tx)
            if tx.has_news and self.dialect == "postgresql":
                notice = {"channel": CHANNEL, "notice": notice_of(self.sender, work=tx.changed)}
                await tx.session.execute(text("SELECT pg_notify(:channel, :notice)"), notice)
        if tx.has_news:
            self.bell.ring(work=tx.changed)

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Transaction]:
        """A transaction that only reads; everything it reads is of one moment. Raises Contended and Unreachable."""
        async with telemetry.db_transaction("read"), self._begun(READING) as tx:
            tx.reads_only = True
            yield tx

    async def check_writable(self) -> None:
        """Raises Unwritable while nothing can be written, and for a while after: on a full disk small writes still go through now and
        then. Tries nothing as long as all goes well."""
        if self._newest_trouble is None:
            return
        failed_s, before = self._newest_trouble
        if self.clock.monotonic_s() - failed_s < TELL_FOR_S:
            raise errors.Unwritable.again(before)
        try:
            async with asyncio.timeout(CHECK_WITHIN_S), self.transaction() as tx:
                await events.touch_service(tx)
        except TimeoutError:  # it waits for a lock
            raise errors.Unwritable.again(before) from None
        self._newest_trouble = None

    @asynccontextmanager
    async def _noting_trouble(self) -> AsyncGenerator[None]:
        """What could not be written a moment ago is not tried by all who waited for that: each try at a locked database takes long."""
        if self._trouble is not None and self.clock.monotonic_s() - self._trouble[0] < TRY_AGAIN_S:
            raise errors.Unwritable.again(self._trouble[1])
        try:
            yield
        except errors.Unwritable as error:
            self._trouble = self._newest_trouble = (self.clock.monotonic_s(), error)
            telemetry.count(telemetry.OPERATORS_FAULTS, where="database", reason=error.reason)
            raise
        self._trouble = None

    @property
    def stepped(self) -> timedelta:
        """By how much the clock was set since this process began."""
        return (self._carried or timedelta(0)) - (self._carried_at_first or timedelta(0))

    def even_now(self) -> datetime:
        """The time without the steps since this process began: what is measured by it goes on evenly."""
        return self.clock.now() - self.stepped

    async def close(self) -> None:
        """Once all connections are back, of calls too that were broken off a moment ago: what is left of them would be a connection
        that nobody closes, and a transaction that PostgreSQL has to find out about."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                while self._num_out():  # noqa: ASYNC110 (the pool tells nobody)
                    await asyncio.sleep(LOOK_EVERY_S)
        await self._engine.dispose()

    def _num_out(self) -> int:
        pool = self._engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    @asynccontextmanager
    async def _begun(self, how: Mapping[str, dict[str, Any]]) -> AsyncGenerator[Transaction]:
        committing = False
        try:
            async with asyncio.timeout(TRANSACTION_S), self._engine.connect() as connection:
                await connection.execution_options(**how[self.dialect])
                while True:
                    async with AsyncSession(connection, expire_on_commit=False) as session, session.begin():
                        now, step, carried = await self._look_at_clock(session)
                        if not step:
                            yield Transaction(session=session, now=now, job_event=self._job_event, sender=self.sender)
                            await session.flush()
                            committing = True
                            break
                    await self._carry_over(step, carried)
        except SQLAlchemyError as error:
            translated = errors.translated(error, committing=committing)
            if translated is None:
                raise
            raise translated from error
        except TimeoutError as error:
            raise errors.Unreachable("the database takes too long to answer", was_committing=committing) from error

    async def _look_at_clock(self, session: AsyncSession) -> tuple[datetime, timedelta, timedelta]:
        """The time; by how much it was set, if what goes on has not been carried over that yet; and the sum of all steps before."""
        began_s = self.clock.monotonic_s()
        if isinstance(self.clock, FollowingClock) and self.dialect == "postgresql":
            now_us, carried_us = (await session.execute(_NOW)).one()
            self.clock.follow(_EPOCH + timedelta(microseconds=now_us))
            carried = timedelta(microseconds=carried_us)
        else:
            carried = await clock_steps.carried(session) if self._carried is None else self._carried
        if self._carried_at_first is None:
            self._carried_at_first = carried
        if carried != self._carried:
            # Another has carried a step over. Who began after that step has not seen it, and would take it back; the other would carry it
            # over again, for ever.
            self._watch = StepWatch()
        self._carried = carried
        now, looked_s = self.clock.now(), self.clock.monotonic_s()
        return now, self._watch.look(now - carried, looked_s, looked_s - began_s), carried

    async def _carry_over(self, step: timedelta, carried: timedelta) -> None:
        async with self._carrying, self._engine.connect() as connection:
            if self._carried != carried:
                return  # another transaction of this process has done it
            await connection.execution_options(**WRITING[self.dialect])
            async with AsyncSession(connection) as session, session.begin():
                is_mine = await clock_steps.carry_over(session, step, carried=carried)
            self._carried = carried + step if is_mine else None
        if is_mine:
            telemetry.count("lorafleet_clock_steps_total")
            log.warning("the clock was set by %+.0f s: runs, locks and deadlines are carried over", step.total_seconds())


def notice_of(sender: str, *, work: bool) -> str:
    """What other replicas are told of a commit."""
    return sender if work else sender + _ONLY_SHOWN


def read_notice(notice: str) -> tuple[str, bool]:
    """Whose commit it was, and whether loops have to look."""
    return notice.removesuffix(_ONLY_SHOWN), not notice.endswith(_ONLY_SHOWN)
