"""Adoption, loss, retries: what a run's absence makes of its job."""

import pytest

from lorafleet.v1 import training_service_pb2 as pb
from service.control.attempts import Gone
from service.db import locks
from service.db.models import RunRow
from service.reconcile import observe
from service.reconcile.observe import observe_once
from service.reconcile.tools import LOCK_S
from tests.service.world import World, failed, progress, resumed, stopped, succeeded


async def test_a_run_that_outlived_the_control_plane_is_adopted(world: World):
    name, run = await world.running()
    world.clock.advance(3600)  # nobody served for an hour
    world.with_tools(up_since=world.clock.now())
    await world.settle()
    assert world.backend.launches == [run]
    assert world.backend.stops == []
    await world.report(run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


async def test_attempt_two_starts_only_when_attempt_one_is_observed_gone(world: World):
    name, run = await world.running()
    await world.report(run, failed("STORE_UNREACHABLE", retryable=True))
    world.clock.advance(25)
    await world.settle()
    assert await world.state(name) == "RUNNING"
    assert world.backend.launches == [run]

    world.backend.end(run)
    world.clock.advance(1)
    await world.settle()
    assert await world.state(name) == "QUEUED"
    world.clock.advance(6)
    await world.settle()
    assert len(world.backend.launches) == 2
    assert len(world.backend.alive) == 1


async def test_three_lost_runs_are_a_failed_job(world: World):
    name, _ = await world.started()
    for _ in range(3):
        world.backend.end(world.backend.launches[-1], "RUN_LOST", "the driver exited with code 137")
        world.clock.advance(60)
        await world.settle()
        world.clock.advance(60)
        await world.settle()
    job = await world.job(name)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "RUN_LOST")
    assert [attempt.number for attempt in job.attempts] == [1, 2, 3]
    assert len(world.backend.launches) == 3


async def test_attempt_two_tells_the_step_it_resumed_from(world: World):
    name, run = await world.running()
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    world.clock.advance(6)
    await world.settle()
    await world.report(world.backend.launches[-1], resumed(40), progress(41))
    job = await world.job(name)
    assert [attempt.resumed_from_step for attempt in job.attempts] == [0, 40]
    assert job.state == pb.JOB_STATE_RUNNING


async def test_a_final_failure_is_not_tried_again(world: World):
    name, run = await world.running()
    await world.report(run, failed("NAN_LOSS", retryable=False, message="the loss is not a number at step 7"))
    job = await world.job(name)
    assert (job.state, job.reason, job.message) == (pb.JOB_STATE_FAILED, "NAN_LOSS", "the loss is not a number at step 7")
    world.backend.end(run)
    world.clock.advance(60)
    await world.settle()
    assert world.backend.launches == [run]


async def test_a_lost_last_report_is_found_in_the_store(world: World):
    name, run = await world.running()
    await world.commit_artifact(name)
    world.backend.end(run, "RUN_LOST")
    world.clock.advance(2)
    await world.settle()
    job = await world.job(name)
    assert job.state == pb.JOB_STATE_SUCCEEDED
    assert job.artifact.uri == f"{job.output_uri}/adapter"
    assert len(job.artifact.manifest_sha256) == 64


async def test_a_stop_without_a_cancel_is_queued_again(world: World):
    name, run = await world.running()
    await world.report(run, stopped())
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "STARTING"
    assert len(world.backend.launches) == 2


async def test_a_backend_that_cannot_tell_changes_nothing(world: World):
    name, _ = await world.running()
    world.backend.reachable = False
    world.clock.advance(30)
    assert await observe_once(world.tools)
    assert await world.state(name) == "RUNNING"


async def test_a_backend_and_a_run_that_stay_away_are_lost(world: World):
    name, _ = await world.running()
    world.backend.reachable = False
    world.clock.advance(world.tools.stop.unreachable_s + 1)
    await observe_once(world.tools)
    job = await world.job(name)
    assert (job.state, job.attempts[0].reason) == (pb.JOB_STATE_QUEUED, "RAY_HEAD_GONE")


async def test_an_observer_that_wakes_after_its_lock_expired_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch):
    name, _ = await world.running()
    world.clock.advance(2)

    async def sleepy(tools, run):
        world.clock.advance(LOCK_S + 1)
        async with world.tools.db.transaction() as tx:  # another replica takes over
            assert await locks.take(tx, RunRow, first=RunRow.due_at, lock_for_s=LOCK_S)
        return Gone(reason="RUN_LOST")

    monkeypatch.setattr(observe, "_observe", sleepy)
    await observe_once(world.tools)
    assert await world.state(name) == "RUNNING"
