"""Warm workers: one run after another in one process, bounded in time, never across tenants, and nothing lost on the way."""

import logging
from dataclasses import replace

import pytest

from lorafleet.contract import layout
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.errors import FailedPrecondition
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.control.admission import Limits
from service.core.resource_names import JobName
from service.db import locks, runs
from service.jobs.creation import NewJob
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile.admit import admit_once
from service.reconcile.launch import launch_once
from service.runs.reports import Reports
from tests.service.world import World, failed, progress, stopped, succeeded


async def idle(world: World, run: str) -> rpb.ReportResponse:
    """What the next idle report of a run's workers does."""
    return await world.report(run, source="worker-0", idle=True)


async def warm(world: World, job_id: str = "first", **changes) -> str:
    """A run that has ended well and whose workers wait."""
    _, run = await world.running(job_id, **changes)
    await world.report(run, succeeded())
    await idle(world, run)
    return run


async def offered(world: World, run: str, job_id: str = "second", **changes) -> tuple[JobName, rpb.NextRun]:
    """A second job that these workers are told of."""
    name = await world.submit(job_id, **changes)
    await world.settle()
    return name, (await idle(world, run)).next_run


def is_released(answer: rpb.ReportResponse) -> bool:
    return [each.action for each in answer.directives] == [rpb.DIRECTIVE_ACTION_RELEASE]


async def manifest(world: World, uri: str) -> RunManifest:
    return RunManifest.model_validate_json(await world.tools.store.get(uri) or b"")


async def test_workers_that_wait_are_not_stopped_while_they_may(world: World):
    run = await warm(world)
    for _ in range(5):
        world.clock.advance(9)
        await world.settle()
        answer = await idle(world, run)
        assert not answer.directives
        assert answer.next_report_s == 0.5
    assert (world.backend.stops, world.backend.alive) == ([], [run])


async def test_a_manifest_says_how_long_workers_may_wait(world: World):
    _, run = await world.started()
    found = await manifest(world, layout.run_manifest(world.tools.locations.artifacts_uri, run))
    assert found.warm_idle_s == world.tools.stop.warm_idle_s == 60


async def test_the_next_run_goes_to_the_warm_workers(world: World):
    run = await warm(world)
    name, told = await offered(world, run)
    assert world.backend.launches == [run], "nothing new is launched"
    assert (await manifest(world, told.manifest_uri)).pack[0].job == str(name)
    world.tools.tokens.check(told.run, told.token, world.clock.now())  # raises for one that is not good
    assert await world.state(name) == "ADMITTED"

    await world.report(told.run, progress(1))
    assert await world.state(name) == "RUNNING"
    await world.report(told.run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


async def test_the_offer_is_repeated_until_the_run_speaks(world: World):
    """An answer that is lost must not lose the run."""
    run = await warm(world)
    _, told = await offered(world, run)
    assert (await idle(world, run)).next_run.run == told.run  # its token is of the moment
    world.clock.advance(30)
    await world.settle()
    assert (await idle(world, run)).next_run.run == told.run  # its token is of the moment
    await world.report(told.run, progress(0, phase="preparing"))
    assert not (await world.report(run)).HasField("next_run")


async def test_runs_follow_one_another_in_one_process(world: World):
    first = await warm(world)
    run = first
    for number in range(3):
        _, told = await offered(world, run, f"next-{number}")
        await world.report(told.run, progress(1), succeeded())
        run = told.run
        await idle(world, run)
    assert world.backend.launches == [first]
    await idle(world, run)
    world.clock.advance(61)
    assert is_released(await idle(world, run))


async def test_idle_workers_hold_a_place_that_only_they_can_fill(world: World):
    run = await warm(world)
    _, told = await offered(world, run)
    await world.report(told.run, progress(1))
    await world.submit("third")
    await world.settle()
    assert world.backend.launches == [run]


async def test_warm_workers_are_preferred_to_a_free_place(world: World):
    world.with_tools(limits=Limits(max_running_runs=2))
    run = await warm(world)
    await offered(world, run)
    assert world.backend.launches == [run]


async def test_nothing_comes_and_the_workers_are_released_then_stopped(world: World):
    run = await warm(world)
    for _ in range(6):
        world.clock.advance(10)
        answer = await idle(world, run)
    assert is_released(answer)
    await world.settle()
    assert world.backend.stops == [], "they may end by themselves"
    world.clock.advance(world.tools.stop.linger_s)
    await world.settle()
    assert world.backend.stops == [run]
    assert world.backend.alive == []


async def test_a_server_that_wants_no_warm_workers_releases_them_at_once(world: World):
    _, run = await world.running()
    await world.report(run, succeeded())
    warmth = replace(world.reports._warmth, stop=replace(world.tools.stop, warm_idle_s=0))
    world.reports = Reports(world.tools.db, warmth)
    assert is_released(await idle(world, run))


async def test_workers_of_another_base_make_room(world: World):
    run = await warm(world)
    (world.folder / "other").mkdir()
    (world.folder / "other" / "model_index.json").write_text("{}")
    name, told = await offered(world, run, base_model={"uri": f"file://{world.folder}/other"})
    assert not told.run
    assert is_released(await idle(world, run))
    world.backend.end(run, "DRIVER_EXITED")
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "STARTING"
    assert len(world.backend.launches) == 2


async def _other_tenant(world: World, **changes) -> JobName:
    job = await world.jobs.create(NewJob(tenant="blue", job_id="other", request_id="", spec=world.spec(**changes)))
    await world.settle()
    return JobName("blue", job.name.rpartition("/")[2])


async def test_no_tenant_gets_workers_that_trained_for_another_who_shares_with_none(world: World):
    run = await warm(world)
    await _other_tenant(world, scheduling={"sharing": "anyone"})
    assert is_released(await idle(world, run))


async def test_tenants_who_share_with_anyone_may_follow_one_another(world: World):
    run = await warm(world, scheduling={"sharing": "anyone"})
    await _other_tenant(world, scheduling={"sharing": "anyone"})
    assert (await idle(world, run)).next_run.run


async def test_what_a_process_has_seen_once_it_has_seen(world: World):
    """The run before the last one was private: the workers stay its tenant's."""
    run = await warm(world)
    _, told = await offered(world, run, scheduling={"sharing": "anyone"})
    await world.report(told.run, progress(1), succeeded())
    await idle(world, told.run)
    await _other_tenant(world, scheduling={"sharing": "anyone"})
    assert is_released(await idle(world, told.run))


async def test_a_tenant_that_the_server_isolates_leaves_no_workers_to_others(world: World):
    run = await warm(world, scheduling={"sharing": "anyone"})
    isolated = Policy(isolated_tenants=frozenset({"acme"}))
    world.with_tools(candidates=Candidates(Planner(world.tools.candidates.planner.shapes, isolated)))
    await _other_tenant(world, scheduling={"sharing": "anyone"})
    assert is_released(await idle(world, run))


async def test_killed_between_admission_and_offer_the_run_is_offered_after_the_restart(world: World):
    run = await warm(world)
    name = await world.submit("second")
    await admit_once(world.tools)
    assert not (await idle(world, run)).HasField("next_run"), "its manifest is not written"
    async with world.tools.db.transaction() as tx:
        await locks.release_all(tx)
    await world.settle()
    told = (await idle(world, run)).next_run
    assert (await manifest(world, told.manifest_uri)).pack[0].job == str(name)


async def test_killed_between_manifest_and_its_record_the_same_run_is_offered(world: World, monkeypatch: pytest.MonkeyPatch):
    run = await warm(world)
    await world.submit("second")
    await admit_once(world.tools)

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("service.reconcile.launch._offer", die)
        with pytest.raises(Killed):
            await launch_once(world.tools)
    async with world.tools.db.transaction() as tx:
        await locks.release_all(tx)
    await world.settle()
    assert (await idle(world, run)).next_run.run
    assert world.backend.launches == [run]


async def test_workers_that_die_before_they_begin_cost_the_job_nothing(world: World):
    run = await warm(world)
    name, told = await offered(world, run)
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    job = await world.job(name)
    assert [attempt.reason for attempt in job.attempts] == ["HOST_GONE", ""]
    assert await world.state(name) == "STARTING", "in a run of its own, at once"
    assert len(world.backend.launches) == 2
    with pytest.raises(FailedPrecondition):
        await world.report(told.run, progress(1))


async def test_an_artifact_that_silent_workers_committed_counts(world: World):
    """They were told, trained and died, and no report came through."""
    run = await warm(world)
    name, _ = await offered(world, run)
    await world.commit_artifact(name)
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "SUCCEEDED"


async def test_workers_that_die_in_their_second_run_count_as_any(world: World):
    run = await warm(world)
    name, told = await offered(world, run)
    await world.report(told.run, progress(1))
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    job = await world.job(name)
    assert (job.state, job.reason) == (pb.JOB_STATE_QUEUED, "RETRYING")
    assert job.attempts[0].reason == "RUN_LOST"
    assert job.attempts[0].run == told.run


async def test_a_cancel_in_the_second_run_stops_the_process_that_it_is_in(world: World):
    run = await warm(world)
    name, told = await offered(world, run)
    await world.report(told.run, progress(1))
    await world.jobs.cancel(name)
    answer = await world.report(told.run)
    assert [each.action for each in answer.directives] == [rpb.DIRECTIVE_ACTION_STOP]
    world.clock.advance(world.tools.stop.grace_period_s)
    await world.report(told.run)
    await world.settle()
    assert world.backend.stops == [run]
    assert await world.state(name) == "CANCELLED"


async def test_workers_stay_warm_after_a_cancelled_job(world: World):
    name, run = await world.running()
    await world.jobs.cancel(name)
    await world.report(run, stopped())
    await idle(world, run)
    for _ in range(5):
        world.clock.advance(11)
        await idle(world, run)
        await world.settle()
    assert world.backend.stops == []


async def test_a_style_that_failed_and_is_worth_another_try_has_it_on_the_same_workers(world: World):
    name, run = await world.running()
    await world.report(run, failed("STORE_UNREACHABLE", retryable=True))
    await idle(world, run)
    job = await world.job(name)
    assert (job.state, job.reason) == (pb.JOB_STATE_QUEUED, "RETRYING")
    world.clock.advance(6)
    await idle(world, run)
    await world.settle()
    told = (await idle(world, run)).next_run
    await world.report(told.run, progress(1))
    assert await world.state(name) == "RUNNING"
    assert [attempt.run for attempt in (await world.job(name)).attempts] == [run, told.run]
    await world.report(run, progress(99))  # the driver of the first run, which is the same process
    assert (await world.job(name)).progress.step == 1


async def test_a_job_that_waits_for_its_second_try_is_cancelled_without_harm_to_the_workers(world: World):
    name, run = await world.running()
    await world.report(run, failed("STORE_UNREACHABLE", retryable=True))
    await idle(world, run)
    await world.jobs.cancel(name)
    await world.settle()
    assert await world.state(name) == "CANCELLED"
    assert world.backend.stops == []
    assert not is_released(await idle(world, run))


async def test_idle_before_the_drivers_last_word_waits_for_it(world: World):
    name, run = await world.running()
    await idle(world, run)
    assert await world.state(name) == "RUNNING"
    await world.report(run, succeeded())
    await idle(world, run)
    assert await world.state(name) == "SUCCEEDED"
    async with world.tools.db.snapshot() as tx:
        found = await runs.get(tx, run)
    assert found is not None
    assert found.state == "IDLE"


async def test_idle_workers_that_fall_silent_are_stopped(world: World):
    run = await warm(world)
    world.clock.advance(world.tools.stop.heartbeat_timeout_s + 1)
    await world.settle()
    assert world.backend.stops == [run]
    await world.submit("second")
    world.clock.advance(2)
    await world.settle()
    assert len(world.backend.launches) == 2


async def test_silent_workers_get_no_run(world: World):
    run = await warm(world)
    world.clock.advance(20)
    name = await world.submit("second")
    await world.settle()
    assert await world.state(name) == "QUEUED"
    await idle(world, run)
    await world.settle()
    assert (await idle(world, run)).next_run.run


async def test_workers_that_never_begin_what_they_are_told_are_stopped(world: World):
    run = await warm(world)
    name, _ = await offered(world, run)
    for _ in range(95):
        world.clock.advance(10)
        await idle(world, run)
    await world.settle()
    assert world.backend.stops == [run]
    assert await world.state(name) == "QUEUED"


async def test_a_run_on_workers_that_are_gone_is_stale(world: World):
    run = await warm(world)
    world.backend.end(run, "DRIVER_EXITED")
    world.clock.advance(2)
    await world.settle()
    with pytest.raises(FailedPrecondition) as refused:
        await idle(world, run)
    assert refused.value.reason == "STALE_ATTEMPT"


async def test_the_end_of_a_run_that_did_well_reads_as_good_news(world: World, caplog: pytest.LogCaptureFixture):
    _, run = await world.running()
    await world.report(run, succeeded())
    world.backend.end(run, "DRIVER_EXITED")
    world.clock.advance(2)
    with caplog.at_level(logging.INFO, logger="service.reconcile.observe"):
        await world.settle()
    assert f"{run} has ended; 1 of its 1 jobs succeeded" in caplog.text
    assert "gone" not in caplog.text
