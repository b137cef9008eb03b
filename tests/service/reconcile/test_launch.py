"""Launching: eligibility, success, stale token, contention, and a kill between any two lines."""

import asyncio
import json

import pytest

from lorafleet.contract import layout
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import LorafleetError
from lorafleet.v1 import training_service_pb2 as pb
from service.db import locks
from service.db.models import RunRow
from service.reconcile.admit import admit_once
from service.reconcile.context import LOCK_S
from service.reconcile.launch import launch_once
from tests.service.world import World, progress, succeeded


class Killed(BaseException):
    """The process dies here."""


async def test_nothing_to_launch(world: World):
    assert not await launch_once(world.tools)


async def test_a_launched_run_finds_its_manifest_and_its_spec(world: World):
    name, run = await world.started(adapter={"rank": 4})
    assert await world.state(name) == "STARTING"

    manifest = RunManifest.model_validate_json(
        await world.tools.store.get(layout.run_manifest(world.tools.locations.artifacts_uri, run)) or b""
    )
    assert (manifest.run, manifest.attempt, manifest.pack[0].job) == (run, 1, str(name))
    assert manifest.pack[0].spec.adapter.rank == 4
    spec = json.loads(await world.tools.store.get(layout.JobLayout((await world.job(name)).output_uri).spec) or b"")
    assert spec["adapter"]["rank"] == 4


async def test_no_token_lies_in_the_store(world: World):
    _, run = await world.started()
    for path in (world.folder / "artifacts").rglob("*"):
        assert not path.is_file() or world.backend.tokens[run].encode() not in path.read_bytes()


async def test_killed_between_commit_and_launch_launches_once(world: World):
    await world.submit()
    await admit_once(world.tools)
    with pytest.raises(Killed):
        await _killed(world, before=True)
    await _restart(world)
    await world.settle()
    assert len(world.backend.launches) == 1


async def test_killed_between_launch_and_its_record_launches_once(world: World):
    name = await world.submit()
    await admit_once(world.tools)
    with pytest.raises(Killed):
        await _killed(world, before=False)
    await _restart(world)
    await world.settle()
    assert len(world.backend.launches) == 1
    assert await world.state(name) == "STARTING"


async def test_a_report_that_comes_before_the_launch_is_written_down_counts(world: World):
    name = await world.submit()
    await admit_once(world.tools)
    with pytest.raises(Killed):
        await _killed(world, before=False)
    run = world.backend.launches[0]
    await world.report(run, progress(1))
    assert await world.state(name) == "RUNNING"
    await _restart(world)
    await world.settle()
    assert await world.state(name) == "RUNNING"
    await world.report(run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


async def test_a_loop_that_wakes_after_its_lock_expired_writes_nothing(world: World):
    await world.submit()
    await admit_once(world.tools)
    async with world.tools.db.transaction() as tx:
        late = await locks.take(tx, RunRow, first=RunRow.due_at, lock_for_s=LOCK_S)
    assert late is not None
    world.clock.advance(LOCK_S + 1)
    await launch_once(world.tools)  # another takes over

    async with world.tools.db.transaction() as tx:
        assert await locks.still_held(tx, late) is None
    assert world.backend.launches == [late.id]


async def test_a_lock_that_expired_is_not_held_even_if_nobody_took_it(world: World):
    await world.submit()
    await admit_once(world.tools)
    async with world.tools.db.transaction() as tx:
        late = await locks.take(tx, RunRow, first=RunRow.due_at, lock_for_s=LOCK_S)
    world.clock.advance(LOCK_S + 1)
    async with world.tools.db.transaction() as tx:
        assert late is not None
        assert await locks.still_held(tx, late) is None


async def test_a_run_that_another_holds_is_left_alone(world: World):
    await world.submit()
    await admit_once(world.tools)
    async with world.tools.db.transaction() as tx:
        assert await locks.take(tx, RunRow, first=RunRow.due_at, lock_for_s=LOCK_S)
    assert not await launch_once(world.tools)
    assert world.backend.launches == []
    world.clock.advance(LOCK_S)
    assert await launch_once(world.tools)


async def test_loops_that_contend_launch_once(world: World):
    await world.submit()
    await admit_once(world.tools)
    await asyncio.gather(*(launch_once(world.tools) for _ in range(5)))
    assert len(world.backend.launches) == 1


async def test_an_absent_backend_is_waited_for_and_the_user_is_told(world: World):
    world.backend.reachable = False
    name = await world.submit()
    await world.settle()
    job = await world.job(name)
    assert job.state == pb.JOB_STATE_ADMITTED
    assert "the fake backend is away" in job.message
    world.backend.reachable = True
    await world.settle()
    assert await world.state(name) == "STARTING"
    assert len((await world.job(name)).attempts) == 1


async def test_a_launch_that_is_refused_is_a_failed_attempt(world: World):
    def refuse() -> None:
        raise LorafleetError("no such image", reason="RAY_REFUSED")

    world.backend.after_launch = refuse
    name = await world.submit()
    await world.settle()
    job = await world.job(name)
    assert job.state == pb.JOB_STATE_QUEUED
    assert [attempt.reason for attempt in job.attempts] == ["RAY_REFUSED"]


async def test_jobs_wait_for_a_free_run_and_are_told_so(world: World):
    await world.started("first")
    second = await world.submit("second")
    await world.settle()
    job = await world.job(second)
    assert (job.state, job.reason) == (pb.JOB_STATE_QUEUED, "NO_FREE_RUN")
    assert len(world.backend.launches) == 1


async def _killed(world: World, *, before: bool) -> None:
    """A launch that dies before or after the backend has started the run."""

    def die() -> None:
        raise Killed

    failpoint = "before_launch" if before else "after_launch"
    setattr(world.backend, failpoint, die)
    try:
        await launch_once(world.tools)
    finally:
        setattr(world.backend, failpoint, None)


async def _restart(world: World) -> None:
    """What `lorafleet serve` does on a database of its own: the locks of the dead are freed."""
    async with world.tools.db.transaction() as tx:
        await locks.release_all(tx)


async def test_a_backend_is_told_whose_run_it_is_and_what_it_needs(world: World):
    cluster = {"num_workers": 2, "cpus_per_worker": 1.5, "gpus_per_worker": 1, "memory_gib_per_worker": 3}
    _, run = await world.started(cluster=cluster, scheduling={"priority": 60})
    request = world.backend.requests[run]
    assert (request.tenant, request.priority_class) == ("acme", "high")
    assert {name: getattr(request.cluster, name) for name in cluster} == cluster
    assert request.cluster.profile == "default"
