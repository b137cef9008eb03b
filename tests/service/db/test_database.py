"""The schema is what the models say, transactions are whole, and the event log loses nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from service.core.clock import FakeClock
from service.core.wakeups import Bell
from service.db import events, jobs, migrate
from service.db.database import CLOSE_WITHIN_S, LOOK_EVERY_S, Database
from service.db.engines import blocking_engine, sqlite_engine, sqlite_url
from service.db.models import RunRow, TableBase
from service.jobs.messages import job_event
from tests.service.world import World, progress


def test_the_migrated_schema_is_the_models(database_url: str):
    engine = blocking_engine(database_url)

    def of_this_database(item: Any, *_: object) -> bool:
        """Alembic compares indexes that models have on other databases alone, too."""
        only_on = getattr(item, "_ddl_if", None)
        return only_on is None or only_on.dialect == engine.dialect.name

    opts = {"compare_type": False, "include_object": of_this_database}
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=opts), TableBase.metadata)
    engine.dispose()
    assert differences == []


def test_head_is_the_newest_migration():
    assert ScriptDirectory(str(Path(migrate.__file__).parent / "migrations")).get_current_head() == migrate.HEAD


def test_upgrading_again_changes_nothing(empty_database: Path):
    before = empty_database.read_bytes()
    migrate.upgrade(sqlite_url(empty_database))
    assert empty_database.read_bytes() == before


async def test_a_transaction_that_raises_leaves_nothing(world: World):
    async def half() -> None:
        async with world.tools.db.transaction() as tx:
            tx.session.add(RunRow(id="run-1", state="PENDING", create_time=tx.now, due_at=tx.now))
            await tx.session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await half()
    async with world.tools.db.snapshot() as tx:
        assert await tx.session.scalar(text("SELECT count(*) FROM runs")) == 0


async def test_an_error_names_its_statement_and_not_the_values_in_it(world: World):
    with pytest.raises(DBAPIError) as raised:
        async with world.tools.db.snapshot() as tx:
            await tx.session.execute(text("SELECT nothing FROM service WHERE instance = :instance"), {"instance": "s3cret"})
    assert "SELECT nothing" in str(raised.value)
    assert "s3cret" not in str(raised.value)


async def test_closing_waits_for_the_connections_that_are_out(db: Database):
    reading, may_end = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async with db.snapshot():
            reading.set()
            await may_end.wait()

    reader = asyncio.create_task(read())
    await reading.wait()
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(5 * LOOK_EVERY_S)
    assert not closing.done()
    may_end.set()
    await reader
    await asyncio.wait_for(closing, CLOSE_WITHIN_S)


async def test_sqlite_writes_ahead_and_knows_its_references(database_path: Path, clock: FakeClock):
    db = Database(sqlite_engine(database_path), clock, Bell(), job_event)
    async with db.snapshot() as tx:
        assert await tx.session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await tx.session.scalar(text("PRAGMA foreign_keys")) == 1
    await db.close()


async def test_events_are_numbered_without_holes_in_commit_order(world: World):
    names = [await world.submit(f"job-{place}") for place in range(5)]
    await asyncio.gather(*(world.jobs.cancel(name) for name in names))
    async with world.tools.db.snapshot() as tx:
        found = await events.after(tx, 0, limit=100)
    assert [event.seq for event, _ in found] == list(range(1, 11))


async def test_one_transaction_is_one_event_of_a_job(world: World):
    _, run = await world.started()
    async with world.tools.db.snapshot() as tx:
        before = (await events.service(tx)).last_seq
    await world.report(run, progress(1), progress(2), progress(3))
    async with world.tools.db.snapshot() as tx:
        assert (await events.service(tx)).last_seq == before + 1


async def test_compaction_forgets_old_events_alone(world: World):
    await world.submit("old")
    world.clock.advance(100)
    await world.submit("new")
    async with world.tools.db.transaction() as tx:
        assert await events.compact(tx, tx.now) == 1
    async with world.tools.db.snapshot() as tx:
        assert [job.job_id for _, job in await events.after(tx, 0, limit=10)] == ["new"]
        assert (await events.service(tx)).floor_seq == 1


async def test_compaction_goes_in_pieces_from_the_oldest_on_and_its_floor_never_falls(world: World):
    for name in ("one", "two", "three"):
        await world.submit(name)
    world.clock.advance(100)
    for gone, floor in ((2, 2), (1, 3), (0, 3)):
        async with world.tools.db.transaction() as tx:
            assert await events.compact(tx, tx.now, size=2) == gone
            assert (await events.service(tx)).floor_seq == floor


async def test_saving_an_unchanged_job_tells_nobody(world: World):
    name = await world.submit()
    async with world.tools.db.transaction() as tx:
        row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        assert not jobs.save(tx, row, jobs.value(row))
        assert not tx.touched
