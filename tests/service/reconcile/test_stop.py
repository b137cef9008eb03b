"""Cancel, silence and lingering: cooperative first, hard after."""

import pytest

from lorafleet.errors import FailedPrecondition
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.reconcile.admit import admit_once
from service.reconcile.stop import expire_once
from tests.service.world import World, progress, stopped, succeeded


async def test_a_queued_job_is_cancelled_at_once(world: World):
    name = await world.submit()
    job = await world.jobs.cancel(name)
    assert job.state == pb.JOB_STATE_CANCELLED
    await world.settle()
    assert world.backend.launches == []


async def test_a_job_that_is_about_to_be_launched_never_is(world: World):
    name = await world.submit()
    await admit_once(world.tools)
    assert (await world.jobs.cancel(name)).state == pb.JOB_STATE_STOPPING
    await world.settle()
    assert await world.state(name) == "CANCELLED"
    assert world.backend.launches == []


async def test_a_starting_run_is_stopped_at_once(world: World):
    name, run = await world.started()
    await world.jobs.cancel(name)
    await world.settle()
    assert world.backend.stops == [run]
    assert await world.state(name) == "CANCELLED"


async def test_a_training_run_is_told_to_stop_and_may_save_its_work(world: World):
    name, run = await world.running()
    await world.jobs.cancel(name)
    await world.settle()
    assert world.backend.stops == []
    answer = await world.report(run)
    assert [(directive.job, directive.action) for directive in answer.directives] == [(str(name), rpb.DIRECTIVE_ACTION_STOP)]
    assert answer.next_report_s == 1
    answer = await world.report(run, progress(5, checkpoint_step=5), stopped())
    assert not answer.directives
    job = await world.job(name)
    assert (job.state, job.progress.checkpoint_step) == (pb.JOB_STATE_CANCELLED, 5)


async def test_a_training_run_that_does_not_obey_is_stopped_after_the_grace_period(world: World):
    name, run = await world.running()
    await world.jobs.cancel(name)
    world.clock.advance(world.tools.stop.grace_period_s - 1)
    await world.report(run)
    await world.settle()
    assert world.backend.stops == []
    world.clock.advance(1)
    await world.settle()
    assert world.backend.stops == [run]
    assert await world.state(name) == "CANCELLED"


async def test_cancelled_is_said_only_when_the_run_is_gone(world: World):
    name, run = await world.started()
    world.backend.stops_obeyed = False
    await world.jobs.cancel(name)
    await world.settle()
    assert await world.state(name) == "STOPPING"
    world.clock.advance(world.tools.stop.stop_again_s)
    await world.settle()
    assert world.backend.stops == [run, run]
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "CANCELLED"


async def test_cancel_again_is_harmless_and_of_a_finished_job_refused(world: World):
    name, run = await world.running()
    await world.jobs.cancel(name)
    assert (await world.jobs.cancel(name)).state == pb.JOB_STATE_STOPPING
    await world.report(run, succeeded())
    with pytest.raises(FailedPrecondition):
        await world.jobs.cancel(name)


async def test_a_silent_training_run_is_stopped_and_tried_again(world: World):
    name, run = await world.running()
    world.clock.advance(61)
    await world.settle()
    assert world.backend.stops == [run]
    job = await world.job(name)
    assert (job.state, job.attempts[0].reason) == (pb.JOB_STATE_QUEUED, "HEARTBEAT_LOST")


async def test_a_starting_run_may_be_silent_for_longer(world: World):
    name, _ = await world.started()
    world.clock.advance(800)
    await world.settle()
    assert await world.state(name) == "STARTING"
    world.clock.advance(101)
    await world.settle()
    assert await world.state(name) == "QUEUED"


async def test_heartbeats_keep_a_run(world: World):
    name, run = await world.running()
    for _ in range(10):
        world.clock.advance(50)
        await world.report(run)
        await world.settle()
    assert await world.state(name) == "RUNNING"


async def test_a_run_that_does_not_go_after_its_last_job_is_stopped(world: World):
    name, run = await world.running()
    await world.report(run, succeeded())
    world.clock.advance(world.tools.stop.linger_s - 1)
    await world.settle()
    assert world.backend.stops == []
    world.clock.advance(1)
    await world.settle()
    assert world.backend.stops == [run]
    assert await world.state(name) == "SUCCEEDED"


async def test_a_run_that_reports_and_never_trains_does_not_hold_its_place(world: World):
    name, run = await world.started()
    for _ in range(73):
        world.clock.advance(100)
        await world.report(run, progress(0, phase="preparing"))
    await world.settle()
    assert world.backend.stops == [run]
    job = await world.job(name)
    assert (job.state, job.attempts[0].reason) == (pb.JOB_STATE_QUEUED, "START_TIMEOUT")


async def test_a_job_whose_time_is_up_saves_its_work_and_fails(world: World):
    name, run = await world.running(scheduling={"max_run_time_s": 100.0})
    world.clock.advance(99)
    await expire_once(world.tools)
    assert await world.state(name) == "RUNNING"
    world.clock.advance(1)
    await expire_once(world.tools)
    answer = await world.report(run)
    assert [directive.action for directive in answer.directives] == [rpb.DIRECTIVE_ACTION_STOP]
    await world.report(run, progress(7, checkpoint_step=7), stopped())
    job = await world.job(name)
    assert (job.state, job.reason, job.progress.checkpoint_step) == (pb.JOB_STATE_FAILED, "MAX_RUN_TIME_EXCEEDED", 7)


async def test_a_job_whose_time_is_up_and_that_does_not_obey_is_stopped_the_hard_way(world: World):
    name, run = await world.running(scheduling={"max_run_time_s": 100.0})
    world.clock.advance(100)
    await world.report(run)
    await expire_once(world.tools)
    world.clock.advance(world.tools.stop.grace_period_s)
    await world.report(run)
    await world.settle()
    assert world.backend.stops == [run]
    job = await world.job(name)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "MAX_RUN_TIME_EXCEEDED")
