"""What a batch costs: statements, not seconds, so that no machine is too slow to tell. And it is stored whole or not at all."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, select

from lorafleet.errors import InvalidSpec, LorafleetError
from lorafleet.v1 import batch_service_pb2 as pb
from service.core.resource_names import BatchName
from service.db import attempts, events, jobs
from service.db.models import BatchRow, JobEventRow, JobRow
from service.jobs.batch_specs import NewBatch
from service.jobs.batches import Batches
from tests.service.world import World

NAME = BatchName("acme", "night")


@pytest.fixture
def batches(world: World) -> Batches:
    return Batches(world.tools.db, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)


def new(world: World, count: int, **fields) -> NewBatch:
    defaults = {"base_model": {"uri": f"file://{world.folder}/base"}, "dataset": {"uri": f"file://{world.folder}/pictures"}}
    fields = {"tenant": "acme", "batch_id": "night", "request_id": "", "defaults": defaults, **fields}
    return NewBatch(**fields, items=[pb.BatchItem() for _ in range(count)])


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """Those that the database is sent meanwhile; one with thousands of rows is one."""
    seen: list[str] = []
    engine = world.tools.db._engine.sync_engine

    def note(_connection, _cursor, statement, *_) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


async def cost_of(world: World, action) -> int:
    with statements(world) as seen:
        await action
    return len(seen)


async def test_accepting_more_items_takes_no_more_statements(world: World, batches: Batches):
    few = await cost_of(world, batches.create(new(world, 3, batch_id="few")))
    many = await cost_of(world, batches.create(new(world, 300, batch_id="many")))
    assert many == few


async def test_reading_and_cancelling_more_jobs_takes_no_more_statements(world: World, batches: Batches):
    costs = []
    for count in (3, 300):
        name = BatchName("acme", f"of-{count}")
        await batches.create(new(world, count, batch_id=name.batch_id))
        costs.append((await cost_of(world, batches.get(name)), await cost_of(world, batches.cancel(name))))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL plans by what a table holds: here nothing
async def test_counts_are_read_from_an_index_alone(world: World, batches: Batches):
    await batches.create(new(world, 3))
    with statements(world) as seen:
        await batches.get(NAME)
    [counting] = [statement for statement in seen if "GROUP BY" in statement]
    async with world.tools.db.snapshot() as tx:
        connection = await tx.session.connection()
        plan = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {counting}", ("u",) * counting.count("?"))).all()
    assert any("COVERING INDEX ix_jobs_batch_counts" in row[3] for row in plan), plan


async def test_every_job_has_its_first_event_in_the_order_of_the_items(world: World, batches: Batches):
    await batches.create(new(world, 5))
    async with world.tools.db.snapshot() as tx:
        found = await events.after(tx, 0, limit=100)
        assert [(event.seq, event.version, job.batch_index) for event, job in found] == [(index + 1, 1, index) for index in range(5)]


async def test_jobs_stand_in_the_order_of_their_items_wherever_they_stand_by_age(world: World, batches: Batches):
    await batches.create(new(world, 20))
    async with world.tools.db.snapshot() as tx:
        indices = (await tx.session.scalars(select(JobRow.batch_index).order_by(JobRow.create_time, JobRow.uid))).all()
    assert indices == list(range(20))


async def test_a_batch_that_fails_half_way_leaves_nothing(world: World, batches: Batches, monkeypatch: pytest.MonkeyPatch):
    async def append(*_) -> None:
        raise LorafleetError("the disk is full")

    monkeypatch.setattr(events, "append", append)
    with pytest.raises(LorafleetError):
        await batches.create(new(world, 3))
    async with world.tools.db.snapshot() as tx:
        for table in (BatchRow, JobRow, JobEventRow):
            assert (await tx.session.scalars(select(table))).all() == []


async def test_a_caller_who_goes_away_meanwhile_leaves_nothing(world: World, batches: Batches, monkeypatch: pytest.MonkeyPatch):
    append, reached = events.append, asyncio.Event()

    async def slow_append(*arguments) -> None:
        await append(*arguments)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(events, "append", slow_append)
    call = asyncio.create_task(batches.create(new(world, 3)))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    monkeypatch.undo()
    assert (await batches.create(new(world, 2))).num_jobs == 2, "the id is free, and so is the database"


async def test_what_another_took_while_the_store_was_asked_is_refused(world: World, batches: Batches, monkeypatch: pytest.MonkeyPatch):
    """The first look is a courtesy: the transaction that stores the batch looks again."""
    exists = world.tools.store.exists

    async def slow_exists(uri: str) -> bool:
        monkeypatch.undo()
        await world.submit("night-00001")
        return await exists(uri)

    monkeypatch.setattr(world.tools.store, "exists", slow_exists)
    with pytest.raises(InvalidSpec) as refused:
        await batches.create(new(world, 2))
    assert {violation.field for violation in refused.value.violations} >= {"items[1].job_id"}


async def test_ten_thousand_are_accepted_in_one_piece(world: World, batches: Batches):
    batch = await batches.create(new(world, 10_000))
    assert (batch.num_jobs, batch.counts[0].count) == (10_000, 10_000)
    async with world.tools.db.snapshot() as tx:
        taken = await jobs.ids_taken(tx, "acme", [f"night-{index:05d}" for index in range(10_000)])
        uids = (await tx.session.scalars(select(JobRow.uid))).all()
        assert (len(taken), len(await attempts.of_jobs(tx, uids))) == (10_000, 10_000)


@pytest.mark.parametrize("field", ["vae_uri", "parts.vae"])
async def test_a_part_of_the_base_that_is_not_there_is_told_where_it_is_named(world: World, batches: Batches, field: str):
    missing = f"file://{world.folder}/vae"
    given = {"vae_uri": missing} if field == "vae_uri" else {"parts": {"vae": missing}}
    asked = new(world, 3)
    asked.defaults["base_model"] |= given
    with pytest.raises(InvalidSpec) as caught:
        await batches.create(asked)
    assert [each.field for each in caught.value.violations] == [f"defaults.base_model.{field}"]


async def test_a_regularisation_set_that_is_not_there_is_told_where_it_is_named(world: World, batches: Batches):
    asked = new(world, 3)
    asked.defaults["dataset"] = {
        **asked.defaults.get("dataset", {}),
        "regularization": {"uri": f"file://{world.folder}/dogs", "weight": 1.0},
    }
    with pytest.raises(InvalidSpec) as caught:
        await batches.create(asked)
    assert [each.field for each in caught.value.violations] == ["defaults.dataset.regularization"]
