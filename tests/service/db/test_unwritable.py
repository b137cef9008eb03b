"""A database that cannot be written: calls are told why, soon, readiness says it, and all is well once it can be."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import event

from lorafleet.errors import Unavailable
from service.core.clock import FakeClock
from service.core.wakeups import Bell
from service.db import engines, events
from service.db.database import TELL_FOR_S, TRY_AGAIN_S, Database
from service.db.engines import engine_of, sqlite_url
from service.jobs.messages import job_event
from service.observability.health import OK, Readiness, database_check


@pytest.fixture
async def sqlite(database_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.1)
    db = Database(engine_of(sqlite_url(database_path)), clock, Bell(), job_event)
    yield db
    await db.close()


async def write(db: Database) -> None:
    async with db.transaction() as tx:
        await events.touch_service(tx)


async def ready(db: Database) -> str:
    return (await Readiness({"database": database_check(db)}).health()).parts["database"]


async def test_a_database_that_another_process_locks_is_unavailable_with_its_cause(sqlite: Database, database_path: Path, clock: FakeClock):
    await write(sqlite)
    assert await ready(sqlite) == OK
    other = sqlite3.connect(database_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another process holds its lock") as refused:
        await write(sqlite)
    assert refused.value.reason == "DATABASE_LOCKED"
    assert "another process holds its lock" in await ready(sqlite)
    clock.advance(TELL_FOR_S)
    assert "another process holds its lock" in await ready(sqlite), "tried again"
    other.close()
    clock.advance(TELL_FOR_S)
    assert await ready(sqlite) == OK
    await write(sqlite)


async def test_who_waits_behind_a_locked_write_does_not_wait_for_the_lock_again(
    sqlite: Database, database_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = sqlite3.connect(database_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = sqlite._begun
    tries: list[object] = []
    monkeypatch.setattr(sqlite, "_begun", lambda how: (tries.append(how), begun(how))[1])
    for _ in range(5):
        with pytest.raises(Unavailable, match="another process holds its lock"):
            await write(sqlite)
    assert len(tries) == 1
    other.close()


async def test_a_full_disk_is_unavailable_with_its_cause(sqlite: Database, clock: FakeClock):
    """SQLite says it of a limit of its own in the words that it has for a disk."""

    @event.listens_for(sqlite._engine.sync_engine, "connect")
    def no_more_pages(connection, _record) -> None:
        connection.cursor().execute("PRAGMA max_page_count = 1")

    async def grow() -> None:
        async with sqlite.transaction() as tx:
            await (await tx.session.connection()).exec_driver_sql("CREATE TABLE more (text)")

    with pytest.raises(Unavailable, match="its disk is full") as refused:
        await grow()
    assert refused.value.reason == "DATABASE_DISK_FULL"
    assert "its disk is full" in await ready(sqlite)
    clock.advance(TRY_AGAIN_S)
    await write(sqlite)
    assert "its disk is full" in await ready(sqlite), "a small write may go through, on a disk that is still full"
    clock.advance(TELL_FOR_S)
    assert await ready(sqlite) == OK
