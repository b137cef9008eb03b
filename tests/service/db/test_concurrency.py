"""Many write at once: nothing is overwritten unseen, nothing is given away twice, and a reader of the event log misses nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import pytest
from sqlalchemy import text

from lorafleet.errors import AlreadyExists, Unavailable
from service.control.runs import RunState
from service.core.clock import FakeClock, FollowingClock
from service.core.resource_names import JobName
from service.core.wakeups import Bell, heard
from service.db import events, jobs, locks, queue, runs
from service.db.database import Database
from service.db.engines import engine_of
from service.db.errors import Contended, Unreachable
from service.db.listening import listening
from service.db.models import RunRow
from service.db.retrying import TRIES, again
from service.jobs.creation import NewJob
from service.jobs.messages import job_event
from tests.service.world import World, progress

only_postgres = pytest.mark.parametrize("database_url", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True)

BUSY_SQLITE = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n"


@pytest.fixture
async def other(database_url: str, clock: FakeClock) -> AsyncIterator[Database]:
    """The same database as another replica has it open."""
    database = Database(engine_of(database_url), clock, Bell(), job_event)
    yield database
    await database.close()


async def in_time(work: Awaitable[object]) -> None:
    async with asyncio.timeout(60):
        await work


async def test_a_reader_sees_every_event_of_many_writers_in_order(world: World, db: Database, other: Database):
    num_writers, num_each = 8, 5
    seen: list[int] = []
    done = asyncio.Event()

    async def write(writer: int) -> None:
        for place in range(num_each):
            await again(partial(world.jobs.create, new(world, f"job-{writer}-{place}")))

    async def read() -> None:
        at = 0
        while at < num_writers * num_each:
            async with other.snapshot() as tx:
                found = await events.after(tx, at, limit=100)
                last_seq = (await events.service(tx)).last_seq
            seen.extend(event.seq for event, _ in found)
            at = last_seq  # as a watch goes on: what comes visible behind it would be lost
            await asyncio.sleep(0)
        done.set()

    await in_time(asyncio.gather(read(), *(write(writer) for writer in range(num_writers))))
    assert done.is_set()
    assert seen == list(range(1, num_writers * num_each + 1))


async def test_one_of_many_who_ask_for_a_name_gets_it_and_the_others_are_told(world: World):
    tries = [again(lambda: world.jobs.create(new(world, "fox"))) for _ in range(8)]
    ends = await asyncio.gather(*tries, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, BaseException)]
    assert len(refused) == 7
    assert all(isinstance(end, AlreadyExists) for end in refused), refused


async def test_a_repeated_request_at_the_same_moment_answers_the_same_job(world: World):
    request = NewJob(tenant="acme", job_id="", request_id="5d4b2a1e-6c1f-4f6f-9d55-9a3f6f6f7a11", spec=world.spec())
    made = await asyncio.gather(*(again(lambda: world.jobs.create(request)) for _ in range(6)))
    assert len({job.uid for job in made}) == 1


async def test_cancels_of_all_members_at_the_same_moment_stop_their_run(world: World):
    """Each alone sees another that goes on: the one that comes last must see them all."""
    names = [await world.submit(f"job-{place}") for place in range(6)]
    await world.settle()
    async with world.tools.db.snapshot() as tx:
        [run] = await tx.session.scalars(text("SELECT id FROM runs"))
        assert len(await runs.members(tx, run)) == 6
    await in_time(asyncio.gather(*(again(lambda name=name: world.jobs.cancel(name)) for name in names)))
    async with world.tools.db.snapshot() as tx:
        stopped = await runs.get(tx, run)
        assert stopped is not None
        assert stopped.stop_at is not None


async def test_a_decision_made_on_a_place_that_another_gave_away_is_not_applied(db: Database, other: Database):
    async with db.snapshot() as tx:
        epoch = await queue.admission_epoch(tx)
    async with db.transaction() as tx:
        assert await queue.lock_admission(tx, epoch)
    async with other.transaction() as tx:
        assert not await queue.lock_admission(tx, epoch)
        assert await queue.lock_admission(tx, epoch + 1)
    async with db.snapshot() as tx:
        assert await queue.admission_epoch(tx) == epoch + 2


async def test_of_two_who_decide_at_once_one_gives_the_place_away(db: Database, other: Database):
    gave: list[str] = []

    async def decide(database: Database, name: str) -> None:
        async with database.snapshot() as tx:
            epoch = await queue.admission_epoch(tx)
        await both.wait()
        async with database.transaction() as tx:
            if await queue.lock_admission(tx, epoch):
                gave.append(name)

    both = asyncio.Barrier(2)
    await in_time(asyncio.gather(decide(db, "one"), decide(other, "other")))
    assert len(gave) == 1


async def test_a_replica_that_wakes_late_writes_nothing(world: World, db: Database, other: Database, clock: FakeClock):
    """Paused for longer than its lock lives, while another took the row over."""
    await world.started()
    due = (RunRow.state == RunState.LAUNCHED.value,)
    async with db.transaction() as tx:
        taken = await locks.take(tx, RunRow, *due, first=RunRow.due_at, lock_for_s=60)
    assert taken is not None
    clock.advance(61)
    async with other.transaction() as tx:
        over = await locks.take(tx, RunRow, *due, first=RunRow.due_at, lock_for_s=60)
        assert over is not None
    async with db.transaction() as tx:
        assert await locks.still_held(tx, taken) is None
    async with other.transaction() as tx:
        assert await locks.still_held(tx, over) is not None


async def test_an_expired_lock_is_good_for_nothing_although_nobody_took_the_row(world: World, db: Database, clock: FakeClock):
    await world.started()
    async with db.transaction() as tx:
        taken = await locks.take(tx, RunRow, RunRow.state == RunState.LAUNCHED.value, first=RunRow.due_at, lock_for_s=60)
    assert taken is not None
    clock.advance(60)
    async with db.transaction() as tx:
        assert await locks.still_held(tx, taken) is None


async def test_what_a_draining_replica_held_is_free_at_once_and_nobody_elses(world: World, db: Database, other: Database):
    await world.started()
    async with db.transaction() as tx:
        assert await locks.take(tx, RunRow, RunRow.state == RunState.LAUNCHED.value, first=RunRow.due_at, lock_for_s=60) is not None
    async with other.transaction() as tx:
        await locks.release_held_by(tx, other.sender)
        assert await locks.take(tx, RunRow, RunRow.state == RunState.LAUNCHED.value, first=RunRow.due_at, lock_for_s=60) is None
    async with db.transaction() as tx:
        await locks.release_held_by(tx, db.sender)
    async with other.transaction() as tx:
        assert await locks.take(tx, RunRow, RunRow.state == RunState.LAUNCHED.value, first=RunRow.due_at, lock_for_s=60) is not None


@only_postgres
async def test_two_replicas_take_two_rows_and_wait_for_none(world: World, db: Database, other: Database):
    for name in ("one", "two"):
        async with db.transaction() as tx:
            tx.session.add(RunRow(id=f"run-{name}", state=RunState.PENDING.value, create_time=tx.now, due_at=tx.now))
    pending = (RunRow.state == RunState.PENDING.value,)
    async with db.transaction() as one, other.transaction() as two:
        first = await locks.take(one, RunRow, *pending, first=RunRow.due_at, lock_for_s=60)
        second = await locks.take(two, RunRow, *pending, first=RunRow.due_at, lock_for_s=60)
        third = await locks.take(two, RunRow, *pending, first=RunRow.due_at, lock_for_s=60)
        assert {row.id for row in (first, second) if row is not None} == {"run-one", "run-two"}
        assert third is None


@only_postgres
async def test_locks_taken_in_two_orders_end_in_another_try(world: World, db: Database, other: Database):
    names = [await world.submit("one"), await world.submit("two")]
    met = asyncio.Barrier(2)
    tries: list[JobName] = []

    async def change(database: Database, order: list[JobName]) -> None:
        tries.append(order[0])
        async with database.transaction() as tx:
            for name in order:
                found = await jobs.by_name(tx, name.tenant, name.job_id)
                assert found is not None
                [row] = await runs.lock_jobs(tx, [found.uid])
                row.failures += 1
                tx.touch(row)
                await tx.session.flush()
                if len(tries) == 2 and name == order[0]:
                    await met.wait()

    await in_time(asyncio.gather(again(lambda: change(db, names)), again(lambda: change(other, names[::-1]))))
    assert len(tries) == 3, "one of two gave way, once"
    async with db.snapshot() as tx:
        for name in names:
            row = await jobs.by_name(tx, name.tenant, name.job_id)
            assert row is not None
            assert row.failures == 2, "none overwrote the other's"


@only_postgres
async def test_a_commit_elsewhere_rings_the_bell(world: World, db: Database, other: Database, database_url: str):
    async with listening(other, database_url):
        assert await heard(other.bell.listen(), 20), "it rings once it listens, for what was missed"
        ring = other.bell.listen()
        await world.submit()
        assert await heard(ring, 20)


async def test_progress_rings_for_watchers_and_wakes_no_loop(world: World, db: Database, other: Database, database_url: str):
    """Here, and on another replica."""
    _, run = await world.running("one")
    await world.report(run, progress(1))
    bells = [db.bell] if db.dialect == "sqlite" else [db.bell, other.bell]
    async with listening(other, database_url) if len(bells) == 2 else nullcontext():
        if len(bells) == 2:
            assert await heard(other.bell.listen(), 20), "it rings once it listens"
        shown, work = [bell.listen() for bell in bells], [bell.listen_for_work() for bell in bells]
        await world.report(run, progress(2))
        assert all([await heard(each, 20) for each in shown])
        assert not any(each.is_set() for each in work)
        await world.submit("two")
        assert all([await heard(each, 20) for each in work])


@only_postgres
async def test_all_transactions_are_in_the_databases_time(database_url: str):
    clock = FollowingClock()
    database = Database(engine_of(database_url), clock, Bell(), job_event)
    clock.follow(FakeClock().now())  # this machine's clock is wrong by months
    async with database.snapshot() as tx:
        told = await tx.session.scalar(text("SELECT abs(extract(epoch FROM now()) - :ours)"), {"ours": tx.now.timestamp()})
    await database.close()
    assert told is not None
    assert told < 5


async def test_a_snapshot_is_of_one_moment(world: World, db: Database, other: Database):
    await world.submit("one")
    async with other.snapshot() as tx:
        before = (await events.service(tx)).last_seq
        tx.session.expire_all()
        await world.submit("two")
        assert (await events.service(tx)).last_seq == before
        assert await jobs.by_name(tx, "acme", "two") is None


async def test_what_gives_way_again_and_again_is_told_as_unavailable():
    tries = 0

    async def gives_way() -> None:
        nonlocal tries
        tries += 1
        raise Contended("another came first")

    with pytest.raises(Unavailable):
        await again(gives_way)
    assert tries == TRIES


@pytest.mark.parametrize(("was_committing", "expected"), [(True, 1), (False, TRIES)])
async def test_what_may_have_been_committed_is_not_done_twice(was_committing: bool, expected: int):
    tries = 0

    async def is_lost() -> None:
        nonlocal tries
        tries += 1
        raise Unreachable("the connection is lost", was_committing=was_committing)

    with pytest.raises(Unreachable):
        await again(is_lost)
    assert tries == expected


@only_postgres
async def test_a_lost_connection_is_told_and_the_next_call_has_a_new_one(db: Database, other: Database):
    async with db.snapshot() as tx:
        backend = await tx.session.scalar(text("SELECT pg_backend_pid()"))

    async def is_cut() -> None:
        async with db.transaction() as tx:
            backend = await tx.session.scalar(text("SELECT pg_backend_pid()"))
            async with other.transaction() as killer:
                await killer.session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
            await tx.session.execute(text("SELECT 1"))

    with pytest.raises(Unreachable):
        await is_cut()
    async with db.snapshot() as tx:
        assert await tx.session.scalar(text("SELECT pg_backend_pid()")) != backend


@only_postgres
async def test_who_stands_still_in_a_transaction_loses_it_and_its_row_locks(world: World, db: Database, other: Database):
    """A replica that was stopped with SIGSTOP: the database ends its transaction."""
    name = await world.submit()
    async with db.snapshot() as tx:
        found = await jobs.by_name(tx, name.tenant, name.job_id)
    assert found is not None

    async def stand_still(until: Callable[[], Awaitable[None]]) -> None:
        async with db.transaction() as tx:
            await tx.session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))  # as always, sooner
            [row] = await runs.lock_jobs(tx, [found.uid])
            row.message = "written by one that stood still"
            await until()

    async def another_writes() -> None:
        async with other.transaction() as tx:
            [row] = await runs.lock_jobs(tx, [found.uid])
            row.message = "written by another"

    with pytest.raises(Unreachable):
        await stand_still(another_writes)
    async with other.snapshot() as tx:
        row = await jobs.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        assert row.message == "written by another"


async def test_a_call_that_is_cancelled_in_a_statement_leaves_nothing_that_waits(db: Database):
    """As a server's end cancels all that is left: once a call, and at once whatever that has begun."""
    busy = "SELECT pg_sleep(0.1)" if db.dialect == "postgresql" else BUSY_SQLITE

    async def read() -> None:
        async with db.snapshot() as tx:
            begun.set()
            await tx.session.execute(text(busy))

    for turns in range(1, 12):  # of the event loop, between the two cancels
        begun = asyncio.Event()
        reading = asyncio.create_task(read())
        await begun.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        _, waiting = await asyncio.wait({*left, reading}, timeout=20)
        assert not waiting
    async with db.snapshot() as tx:
        assert await tx.session.scalar(text("SELECT 1")) == 1


def new(world: World, job_id: str) -> NewJob:
    return NewJob(tenant="acme", job_id=job_id, request_id="", spec=world.spec())
