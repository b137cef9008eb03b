"""A lock is as short as its process is alive: it is renewed while the action goes on, and no longer."""

import asyncio
from datetime import timedelta

from service.db import locks
from service.db.models import RunRow
from tests.service.world import World


async def add_run(world: World, run_id: str = "run-1") -> None:
    async with world.tools.db.transaction() as tx:
        tx.session.add(RunRow(id=run_id, state="PENDING", create_time=tx.now, due_at=tx.now))


async def take(world: World, lock_for_s: float) -> RunRow | None:
    async with world.tools.db.transaction() as tx:
        return await locks.take(tx, RunRow, first=RunRow.due_at, lock_for_s=lock_for_s)


async def left_s(world: World, run_id: str = "run-1") -> float:
    """Of the time that the lock lasts."""
    async with world.tools.db.snapshot() as tx:
        row = await tx.session.get(RunRow, run_id)
        assert row is not None
        assert row.lock_expires_at is not None
        return (row.lock_expires_at - tx.now) / timedelta(seconds=1)


async def renewed(world: World, run_id: str = "run-1") -> None:
    while await left_s(world, run_id) < 0.25:  # noqa: ASYNC110 (the lock is renewed beside this)
        await asyncio.sleep(0.01)


async def test_a_lock_is_renewed_while_the_action_goes_on_and_then_no_more(world: World):
    await add_run(world)
    taken = await take(world, 0.3)
    assert taken is not None
    async with asyncio.timeout(30), locks.kept(world.tools.db, [taken], 0.3, 60.0):
        for _ in range(5):
            world.clock.advance(0.2)
            await renewed(world)
        assert await take(world, 0.3) is None, "held for longer than it was taken for"
    world.clock.advance(0.31)
    await asyncio.sleep(0.2)
    assert await take(world, 0.3) is not None


async def test_a_lock_of_an_action_that_hangs_runs_out(world: World):
    await add_run(world)
    taken = await take(world, 0.03)
    assert taken is not None
    async with locks.kept(world.tools.db, [taken], 0.03, at_most_s=0.0):
        world.clock.advance(0.02)
        await asyncio.sleep(0.2)
        assert await left_s(world) < 0.02


async def test_a_lock_that_another_has_taken_over_is_left_alone(world: World):
    await add_run(world)
    taken = await take(world, 0.3)
    assert taken is not None
    world.clock.advance(0.4)
    other = await take(world, 50.0)
    assert other is not None
    async with locks.kept(world.tools.db, [taken], 0.3, 60.0):
        await asyncio.sleep(0.3)
        assert await left_s(world) > 49.0
    async with world.tools.db.transaction() as tx:
        assert await locks.still_held(tx, other) is not None
        assert await locks.still_held(tx, taken) is None


async def test_rows_that_were_taken_together_are_kept_and_given_up_one_by_one(world: World):
    for number in range(1, 5):
        await add_run(world, f"run-{number}")
    async with world.tools.db.transaction() as tx:
        taken = await locks.take_some(tx, RunRow, first=RunRow.due_at, lock_for_s=0.3, most=3)
    assert len(taken) == 3
    async with world.tools.db.transaction() as tx:
        held = await locks.still_held(tx, taken[0])
        assert held is not None
        locks.release(held)
    async with asyncio.timeout(30), locks.kept(world.tools.db, taken, 0.3, 60.0):
        for _ in range(3):
            world.clock.advance(0.2)
            for row in taken[1:]:
                await renewed(world, row.id)
        kept = sorted(row.id for row in taken[1:])
        async with world.tools.db.transaction() as tx:
            assert [row.id for row in await locks.those_held(tx, taken)] == kept
            free = await locks.take_some(tx, RunRow, first=RunRow.id, lock_for_s=9.0, most=9)
            assert sorted([*kept, *(row.id for row in free)]) == [f"run-{number}" for number in range(1, 5)]
