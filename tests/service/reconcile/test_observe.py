"""Adoption, loss, retries: what a run's absence makes of its job."""

import pytest

from lorafleet.errors import LorafleetError
from lorafleet.v1 import training_service_pb2 as pb
from service.backends.base import SUSPENDED, Alive, Observation, RunRef
from service.control.admission import Limits
from service.control.attempts import Gone
from service.core.resource_names import JobName
from service.db import locks
from service.db.models import RunRow
from service.reconcile import observe
from service.reconcile.context import LOCK_S
from service.reconcile.observe import observe_once
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


async def several(world: World) -> list[tuple[JobName, str]]:
    """Jobs that train, each in a run of its own, and are due to be observed."""
    world.with_tools(limits=Limits(max_running_runs=4))
    found = [await world.running(f"of-several-{number}") for number in range(4)]
    world.clock.advance(1)
    return found


async def test_all_runs_that_are_due_are_observed_in_one_step(world: World):
    jobs = await several(world)
    (lost, run), (leaving, its_run), *others = jobs
    world.backend.end(run)
    world.backend.say(its_run, Alive(leaving="EVICTED", message="a worker's pod is evicted"))
    assert await observe_once(world.tools)
    assert not await observe_once(world.tools)
    assert [await world.state(name) for name in (lost, leaving)] == ["QUEUED", "STOPPING"]
    assert [await world.state(name) for name, _ in others] == ["RUNNING"] * 2


async def test_runs_that_are_as_before_cost_two_transactions_together(world: World, monkeypatch: pytest.MonkeyPatch):
    await several(world)
    begun = []
    begin = world.tools.db.transaction
    monkeypatch.setattr(world.tools.db, "transaction", lambda: begun.append(1) or begin())
    assert await observe_once(world.tools)
    assert len(begun) == 2
    world.clock.advance(1)
    assert await observe_once(world.tools), "they are due again"


async def test_a_run_that_cannot_be_looked_at_does_not_keep_the_others_waiting(world: World, monkeypatch: pytest.MonkeyPatch):
    [(_, bad), (lost, run), *_] = await several(world)
    world.backend.end(run)
    look = world.backend.observe

    async def observed(ref: RunRef) -> Observation:
        if ref.run_id == bad:
            raise LorafleetError("the backend is not made for this")
        return await look(ref)

    monkeypatch.setattr(world.backend, "observe", observed)
    await observe_once(world.tools)
    assert await world.state(lost) == "QUEUED"


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


async def test_a_job_hears_why_its_run_does_not_begin_and_once_of_each_reason(world: World):
    name, run = await world.started()

    async def told(seen: Alive) -> tuple[str, str]:
        world.backend.say(run, seen)
        world.clock.advance(1)
        await world.settle()
        job = await world.job(name)
        assert await world.state(name) == "STARTING"
        return job.reason, job.message

    assert await told(Alive(waiting="UNSCHEDULABLE", message="no node")) == ("UNSCHEDULABLE", "no node")
    assert await told(Alive(waiting="UNSCHEDULABLE", message="no node at all")) == ("UNSCHEDULABLE", "no node")
    assert await told(Alive(waiting="IMAGE_PULL_FAILED", message="no image")) == ("IMAGE_PULL_FAILED", "no image")
    assert await told(Alive(waiting="COMING_UP", message="1 of 2 pods are ready")) == ("COMING_UP", "1 of 2 pods are ready")
    assert await told(Alive(waiting="COMING_UP", message="2 of 2 pods are ready")) == ("COMING_UP", "2 of 2 pods are ready")
    assert await told(Alive()) == ("", "starting")
    await world.report(run, progress(1))
    assert ((await world.job(name)).reason, await world.state(name)) == ("", "RUNNING")


async def test_what_a_run_waits_for_is_not_told_of_a_job_that_trains(world: World):
    name, run = await world.running()
    world.backend.say(run, Alive(waiting="ENDING", message="its pods are still there"))
    world.clock.advance(1)
    await world.settle()
    assert ((await world.job(name)).reason, await world.state(name)) == ("", "RUNNING")


async def test_a_run_whose_place_goes_saves_its_work_and_goes_on_elsewhere_at_no_cost(world: World):
    name, run = await world.running()
    for attempt in range(2, 7):  # more often than failures are forgiven
        world.backend.say(run, Alive(leaving="EVICTED", message="a worker's pod is evicted"))
        world.clock.advance(1)
        await world.settle()
        job = await world.job(name)
        assert (await world.state(name), job.reason) == ("STOPPING", "EVICTED")
        assert "a worker's pod is evicted" in job.message
        answer = await world.report(run, stopped())
        assert [directive.job for directive in answer.directives] in ([str(name)], [])
        world.backend.end(run, "DRIVER_EXITED", "the driver exited with code 0")
        world.clock.advance(1)
        await world.settle()
        assert (await world.job(name)).attempts[-1].number == attempt
        run = world.backend.launches[-1]
        await world.report(run, resumed(7), progress(8))
    assert await world.state(name) == "RUNNING"


async def test_a_run_is_told_to_stop_once_its_place_goes(world: World):
    name, run = await world.running()
    world.backend.say(run, Alive(leaving="POD_DELETED", message="its head"))
    world.clock.advance(1)
    await world.settle()
    answer = await world.report(run, progress(2))
    assert [directive.job for directive in answer.directives] == [str(name)]


async def test_a_run_that_does_not_leave_in_time_is_stopped_and_queued_again(world: World):
    name, run = await world.running()
    world.backend.say(run, Alive(leaving="POD_DELETED", message="its head"))
    world.clock.advance(1)
    await world.settle()
    for _ in range(11):
        world.clock.advance(10)
        await world.report(run, progress(3))
        await world.settle()
    assert world.backend.stops == []
    world.clock.advance(20)
    await world.settle()
    world.clock.advance(1)
    await world.settle()
    assert world.backend.stops == [run]
    assert (await world.job(name)).attempts[-1].number == 2


async def test_a_cancel_stays_a_cancel_when_the_place_goes_too(world: World):
    name, run = await world.running()
    await world.jobs.cancel(name)
    world.backend.say(run, Alive(leaving="EVICTED", message="x"))
    world.clock.advance(1)
    await world.settle()
    await world.report(run, stopped())
    world.backend.end(run)
    world.clock.advance(1)
    await world.settle()
    assert await world.state(name) == "CANCELLED"


@pytest.mark.parametrize("reason", [SUSPENDED, "UNSCHEDULABLE"])
async def test_a_run_whose_wait_the_backend_bounds_is_not_taken_for_silent(world: World, reason: str):
    name, run = await world.started()
    for _ in range(100):  # longer than any run may be silent, and than it may take to start
        world.backend.say(run, Alive(waiting=reason, message="it may not begin", is_bounded=True))
        world.clock.advance(100)
        await world.settle()
    assert (await world.job(name)).reason == reason
    assert world.backend.stops == []
    world.backend.say(run, Alive())
    world.clock.advance(1)
    await world.settle()
    world.clock.advance(901)
    await world.settle()
    assert world.backend.stops == [run]


@pytest.mark.parametrize("reason", ["EVICTED", "NODE_LOST", "POD_DELETED"])
async def test_a_run_that_was_taken_away_without_a_word_costs_no_attempt(world: World, reason: str):
    name, run = await world.running()
    for _ in range(4):
        world.backend.end(world.backend.launches[-1], reason, "the node went away")
        world.clock.advance(1)
        await world.settle()
    assert await world.state(name) == "STARTING"
    assert len(world.backend.launches) == 5
    assert world.backend.launches[0] == run


async def test_a_run_that_never_gets_its_pods_ends_with_the_backends_reason(world: World):
    """The backend's deadline and the service's are 900 s each, and the service's began first."""
    name, run = await world.started()
    for _ in range(9):
        world.backend.say(run, Alive(waiting="UNSCHEDULABLE", message="finds no node", is_bounded=True))
        world.clock.advance(100)
        await world.settle()
    world.backend.end(run, "UNSCHEDULABLE", "not started within 900 s: the head's pod finds no node")
    world.clock.advance(1)
    await world.settle()
    job = await world.job(name)
    assert world.backend.stops == []
    assert "UNSCHEDULABLE" in job.message


async def test_a_run_that_waits_for_nobody_who_bounds_it_is_lost_in_time(world: World):
    _, run = await world.started()
    for _ in range(10):
        world.backend.say(run, Alive(waiting="OPERATOR_SILENT", message="KubeRay has not taken it up"))
        world.clock.advance(100)
        await world.settle()
    assert world.backend.stops[:1] == [run]
