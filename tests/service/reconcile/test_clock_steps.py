"""The time of day is set while runs train: what goes on is carried over, and no time has passed for it."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from lorafleet.v1 import report_service_pb2 as rpb
from service.core.clock import FollowingClock
from service.core.wakeups import Bell
from service.db import database, locks
from service.db.database import Database
from service.db.models import RunRow
from service.jobs.messages import job_event
from service.reconcile.stop import expire_once
from tests.service.engines import engine_at
from tests.service.world import World, progress, stopped

STEPS_S = (70.0, -70.0, 3 * 86_400.0)  # a VM that was resumed, a late NTP, a machine that came up with another day
SILENCE_S = 61.0

every_step = pytest.mark.parametrize("step_s", STEPS_S)


@every_step
@pytest.mark.parametrize("times", [1, 6])
async def test_no_run_is_lost(world: World, step_s: float, times: int):
    name, run = await world.running()
    for _ in range(times):
        world.clock.step(step_s)
        await world.settle()
        world.clock.advance(1.5)
        await world.report(run, progress(2))
        await world.settle()
    assert (await world.state(name), world.backend.stops) == ("RUNNING", [])


@every_step
async def test_a_run_that_is_silent_is_noticed_as_soon_as_ever(world: World, step_s: float):
    _, run = await world.running()
    world.clock.advance(SILENCE_S / 2)
    world.clock.step(step_s)
    await world.settle()
    assert world.backend.stops == []
    world.clock.advance(SILENCE_S / 2)
    await world.settle()
    assert world.backend.stops == [run]


@every_step
async def test_the_time_of_a_job_is_the_time_that_it_ran(world: World, step_s: float):
    name, run = await world.running(scheduling={"max_run_time_s": 100.0})
    world.clock.step(step_s)
    world.clock.advance(50)
    await world.report(run, progress(2))
    await expire_once(world.tools)
    assert await world.state(name) == "RUNNING"
    world.clock.advance(51)
    await expire_once(world.tools)
    assert await world.state(name) == "STOPPING"


@every_step
async def test_a_job_that_stops_keeps_its_grace_period(world: World, step_s: float):
    name, run = await world.running()
    await world.jobs.cancel(name)
    world.clock.step(step_s)
    await world.settle()
    assert world.backend.stops == []
    await world.report(run, progress(5, checkpoint_step=5), stopped())
    assert (await world.job(name)).progress.checkpoint_step == 5


@every_step
async def test_a_lock_lasts_as_long_as_it_was_taken_for(world: World, step_s: float):
    await world.running()
    db = world.tools.db

    async def take() -> RunRow | None:
        async with db.transaction() as tx:
            return await locks.take(tx, RunRow, first=RunRow.id, lock_for_s=15)

    assert (held := await take()) is not None
    world.clock.step(step_s)
    assert await take() is None, "another has taken a row that is held"
    async with db.transaction() as tx:
        assert await locks.still_held(tx, held)
    world.clock.advance(16)  # its holder is dead: set back, the lock would last for days
    assert await take() is not None


async def test_a_token_of_a_run_is_not_aged(world: World):
    name, run = await world.running()
    token = world.tools.tokens.of(run, world.clock.now())
    world.clock.step(86_400.0)
    await world.settle()
    answer = await world.reports.apply(token, rpb.ReportRequest(run=run, source="driver"))
    assert (await world.state(name), list(answer.directives)) == ("RUNNING", [])


async def test_a_server_that_starts_after_the_step_sees_what_was_carried_over(world: World, database_url: str):
    _, run = await world.running()
    world.clock.step(70.0)
    await world.settle()
    reported = await report_time(world.tools.db, run)
    second = Database(world.tools.db._engine, world.clock, Bell(), job_event)
    assert (await report_time(second, run), second.stepped) == (reported, timedelta(0))


async def test_of_two_replicas_that_notice_it_one_carries_it_over(world: World):
    _, run = await world.running()
    db = world.tools.db
    second = Database(db._engine, world.clock, Bell(), job_event)
    before = await report_time(db, run)
    assert await report_time(second, run) == before
    world.clock.step(70.0)
    seen = await asyncio.gather(*(report_time(each, run) for each in (db, second) * 3))
    assert set(seen) == {before + timedelta(seconds=70)}
    assert (db.stepped, second.stepped) == (timedelta(seconds=70), timedelta(seconds=70))


@pytest.mark.postgresql
async def test_the_clock_of_postgresql_is_watched_as_well(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    engine = engine_at(postgres_url)
    db = Database(engine, FollowingClock(), Bell(), job_event)
    async with db.transaction() as tx:
        tx.session.add(RunRow(id="run-1", state="LAUNCHED", create_time=tx.now, due_at=tx.now, report_time=tx.now))
    before = await report_time(db, "run-1")
    monkeypatch.setattr(database, "_NOW", text(database._NOW.text.replace("clock_timestamp()", "clock_timestamp() + interval '70 s'")))
    second = Database(engine, FollowingClock(), Bell(), job_event)  # comes after the step: the first has to notice it
    seen = await asyncio.gather(*(report_time(db, "run-1") for _ in range(4)))
    after = set(seen)
    assert len(after) == 1
    assert abs(after.pop() - before - timedelta(seconds=70)) < timedelta(seconds=1)
    assert await report_time(second, "run-1") == seen[0]
    await db.close()


@pytest.mark.postgresql
async def test_who_begins_after_a_step_that_nobody_has_carried_over_yet_does_not_take_it_back(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    engine = engine_at(postgres_url)
    db, late = Database(engine, FollowingClock(), Bell(), job_event), Database(engine, FollowingClock(), Bell(), job_event)
    async with db.transaction() as tx:
        tx.session.add(RunRow(id="run-1", state="LAUNCHED", create_time=tx.now, due_at=tx.now, report_time=tx.now))
    before = await report_time(db, "run-1")
    monkeypatch.setattr(database, "_NOW", text(database._NOW.text.replace("clock_timestamp()", "clock_timestamp() + interval '70 s'")))
    await report_time(late, "run-1")  # its first look is at a clock that was set already
    for _ in range(3):
        for each in (db, late):
            assert abs(await report_time(each, "run-1") - before - timedelta(seconds=70)) < timedelta(seconds=1)
    await db.close()


async def report_time(db: Database, run: str):
    async with db.snapshot() as tx:
        return await tx.session.scalar(select(RunRow.report_time).where(RunRow.id == run))
