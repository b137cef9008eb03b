"""Opens the database and hands out transactions. SQLite for now; writers are serialized as PostgreSQL's would be by row locks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from service import telemetry
from service.bell import Bell
from service.clock import Clock
from service.db import events
from service.db.transaction import Transaction

BUSY_TIMEOUT_S = 20
_BEGIN = "lorafleet_begin"  # execution option: how SQLite begins the transaction


class Database:
    """Transactions on one database. Rings `bell` after each commit that changed something."""

    def __init__(self, engine: AsyncEngine, clock: Clock, bell: Bell) -> None:
        self.bell = bell
        self._engine = engine
        self.clock = clock
        # SQLite has one writer: those of this process queue here in order, not in its busy handler, which is unfair.
        self._writer = asyncio.Lock() if engine.dialect.name == "sqlite" else nullcontext()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that may write. Do nothing slow inside, and nothing outside the database."""
        async with telemetry.db_transaction("write"), self._writer, self._session("BEGIN IMMEDIATE") as session:
            tx = Transaction(session=session, now=self.clock.now())
            async with session.begin():
                yield tx
                await events.record(tx)
        if tx.changed:
            self.bell.ring()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """A transaction that only reads; everything it reads is of one moment."""
        async with telemetry.db_transaction("read"), self._session("BEGIN DEFERRED") as session, session.begin():
            yield Transaction(session=session, now=self.clock.now())

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _session(self, begin: str) -> AsyncIterator[AsyncSession]:
        async with self._engine.connect() as connection:
            await connection.execution_options(**{_BEGIN: begin})
            async with AsyncSession(connection, expire_on_commit=False) as session:
                yield session


def sqlite_engine(path: Path) -> AsyncEngine:
    """An engine on an SQLite file: WAL, so that readers never wait for writers."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own: `_begin` does
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))
