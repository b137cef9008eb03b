"""GPUs, quotas, preemption and places in the queue, with the database in between."""

from dataclasses import replace
from datetime import timedelta

import pytest

from lorafleet.errors import QuotaExceeded
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from service.control.admission import Limits
from service.control.capacity import Hardware
from service.control.packing import PackLimits
from service.control.positions import rounded
from service.core.resource_names import JobName, parse_job
from service.db import events, jobs, queue
from service.db.models import ReservationRow, TenantRow
from service.jobs.creation import NewJob
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile import admit
from service.reconcile.admit import admit_once
from tests.service.world import World, progress, stopped, succeeded


@pytest.fixture(autouse=True)
def lone_jobs_on_four_gpus(world: World) -> None:
    candidates = Candidates(Planner(ShapeCache(world.tools.store, world.clock), Policy(limits=PackLimits(max_pack_size=1))))
    world.with_tools(limits=Limits(max_running_runs=10, capacity_gpus=4), candidates=candidates)


async def submit(world: World, gpus: float, job_id: str = "", tenant: str = "acme", **scheduling) -> JobName:
    spec = world.spec(cluster={"gpus_per_worker": float(gpus)}, scheduling=scheduling)
    job = await world.jobs.create(NewJob(tenant=tenant, job_id=job_id, request_id="", spec=spec))
    world.clock.advance(1)
    return parse_job(job.name)


async def train(world: World, run: str) -> None:
    await world.report(run, progress(1))


async def set_up_tenant(world: World, tenant: str = "acme", **limits) -> None:
    async with world.tools.db.transaction() as tx:
        tx.session.add(TenantRow(id=tenant, create_time=tx.now, update_time=tx.now, **limits))


async def place(world: World, name: JobName) -> int:
    return (await world.job(name)).queue_position


async def test_no_more_gpus_are_used_than_there_are(world: World):
    names = [await submit(world, 2) for _ in range(3)]
    await world.settle()
    assert [await world.state(name) for name in names] == ["STARTING", "STARTING", "QUEUED"]
    waiting = await world.job(names[2])
    assert waiting.reason == "CLUSTER_FULL"
    assert "needs 2 GPUs and 1 CPU at once: more than is free of 4 GPUs" in waiting.message


async def test_a_tenant_at_its_limit_waits_and_others_do_not(world: World):
    await set_up_tenant(world, max_gpus=2.0)
    names = [await submit(world, 1) for _ in range(3)]
    other = await submit(world, 1, tenant="blue")
    await world.settle()
    assert [await world.state(name) for name in (*names, other)] == ["STARTING", "STARTING", "QUEUED", "STARTING"]
    assert (await world.job(names[2])).reason == "TENANT_QUOTA"


async def test_gpus_are_kept_for_a_tenant_while_its_window_lasts(world: World):
    await set_up_tenant(world, "blue")
    async with world.tools.db.transaction() as tx:
        hour = timedelta(hours=1)
        row = ReservationRow(
            tenant="blue", reservation_id="show", gpus=3.0, start_time=tx.now - hour, end_time=tx.now + hour, create_time=tx.now
        )
        tx.session.add(row)
    names = [await submit(world, 1) for _ in range(2)]
    own = await submit(world, 3, tenant="blue")
    await world.settle()
    assert [await world.state(name) for name in (*names, own)] == ["STARTING", "QUEUED", "STARTING"]


async def test_a_job_of_a_higher_class_takes_the_place_of_a_lower_one_which_goes_on_later(world: World):
    low = await submit(world, 4, priority=-10)
    await world.settle()
    (run,) = world.backend.launches
    await train(world, run)
    high = await submit(world, 4, priority=60)
    await world.settle()
    assert (await world.job(low)).reason == "PREEMPTED"
    assert (await world.job(high)).reason == "PREEMPTING"
    assert world.backend.stops == [], "it may save its work"
    (directive,) = (await world.report(run)).directives
    assert (directive.job, directive.action) == (str(low), rpb.DIRECTIVE_ACTION_STOP)
    await world.report(run, progress(7, checkpoint_step=7), stopped())
    await world.settle()
    assert await world.state(high) == "QUEUED", "never before the other is gone"
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    assert (await world.state(low), await world.state(high)) == ("QUEUED", "STARTING")
    second = world.backend.launches[-1]
    await world.report(second, progress(1), succeeded())
    world.backend.end(second)
    world.clock.advance(2)
    await world.settle()
    job = await world.job(low)
    assert (job.state, [attempt.reason for attempt in job.attempts]) == (pb.JOB_STATE_STARTING, ["PREEMPTED", ""])
    async with world.tools.db.snapshot() as tx:
        row = await jobs.by_name(tx, low.tenant, low.job_id)
        assert row is not None
        assert (row.failures, row.preempt_requested) == (0, False)


async def test_a_preempted_run_that_does_not_obey_is_stopped_after_the_grace_period(world: World):
    low = await submit(world, 4, priority=-10)
    await world.settle()
    (run,) = world.backend.launches
    await train(world, run)
    high = await submit(world, 4, priority=60)
    await world.settle()
    world.clock.advance(world.tools.stop.grace_period_s)
    await world.report(run)
    await world.settle()
    assert world.backend.stops == [run]
    assert (await world.state(low), await world.state(high)) == ("QUEUED", "STARTING")


async def test_a_cancel_during_preemption_wins(world: World):
    low = await submit(world, 4, priority=-10)
    await world.settle()
    (run,) = world.backend.launches
    await train(world, run)
    await submit(world, 4, priority=60)
    await world.settle()
    assert (await world.jobs.cancel(low)).reason == "CANCEL_REQUESTED"
    await world.report(run, stopped())
    assert await world.state(low) == "CANCELLED"


async def test_what_may_not_be_preempted_is_not(world: World):
    low = await submit(world, 4, priority=-10, preemptible=False)
    await world.settle()
    await train(world, world.backend.launches[0])
    await submit(world, 4, priority=60)
    await world.settle()
    assert await world.state(low) == "RUNNING"


async def test_a_job_that_has_waited_into_the_high_class_is_not_pushed_aside_by_it_for_ever(world: World):
    """It would be the first to start again, and be pushed aside again."""
    first = await submit(world, 4, preemptible=False)
    await world.settle()
    low = await submit(world, 4, priority=-10)
    world.clock.advance(13 * 3600)
    await world.jobs.cancel(first)
    world.backend.end(world.backend.launches[0])
    world.clock.advance(6)
    await world.settle()
    assert await world.state(low) == "STARTING"
    await train(world, world.backend.launches[-1])
    await submit(world, 4, priority=60)
    await world.settle()
    assert await world.state(low) == "RUNNING"


async def test_a_round_that_another_replica_has_overtaken_is_not_applied(world: World, monkeypatch: pytest.MonkeyPatch):
    name = await submit(world, 1)
    plan = admit._plan

    async def while_another_decides(tools, seen):
        async with tools.db.transaction() as tx:
            assert await queue.lock_admission(tx, seen.epoch)
        return await plan(tools, seen)

    monkeypatch.setattr(admit, "_plan", while_another_decides)
    assert await admit_once(world.tools), "it is held again at once"
    assert await world.state(name) == "QUEUED"
    monkeypatch.setattr(admit, "_plan", plan)
    await admit_once(world.tools)
    assert await world.state(name) == "ADMITTED"


async def test_who_waits_sees_its_place_and_moves_up(world: World):
    names = [await submit(world, 4) for _ in range(3)]
    await world.settle()
    assert [await place(world, name) for name in names] == [0, 1, 2]
    world.backend.end(world.backend.launches[0])
    await world.jobs.cancel(names[0])
    world.clock.advance(6)
    await world.settle()
    assert [await place(world, name) for name in names[1:]] == [0, 1]


async def test_a_queue_that_moves_up_by_one_changes_few_rows_and_is_no_storm_of_events(world: World):
    await submit(world, 4)
    names = [await submit(world, 4) for _ in range(40)]
    await world.settle()
    async with world.tools.db.snapshot() as tx:
        before = (await events.service(tx)).last_seq
    await world.jobs.cancel(names[0])
    world.clock.advance(6)
    await world.settle()
    async with world.tools.db.snapshot() as tx:
        assert (await events.service(tx)).last_seq - before == 1 + 10, "the cancel, and the next ten"
    assert await place(world, names[39]) == 39


def test_places_are_exact_where_it_counts():
    assert [rounded(place) for place in (1, 99, 100, 101, 119, 999, 1000, 1234, 98_765)] == [1, 99, 100, 100, 110, 990, 1000, 1200, 98_000]
    moved = sum(rounded(place) != rounded(place - 1) for place in range(2, 10_001))
    assert moved < 300


async def test_more_jobs_than_may_wait_are_refused_with_the_numbers(world: World):
    await set_up_tenant(world, max_queued_jobs=2)
    for _ in range(2):
        await submit(world, 1)
    with pytest.raises(QuotaExceeded) as refused:
        await submit(world, 1)
    (violation,) = refused.value.violations
    assert violation.subject == "tenants/acme"
    assert "2 jobs wait and 1 would be added; at most 2 may wait (max_queued_jobs)" in violation.description
    await submit(world, 1, tenant="blue")


async def test_a_tenant_whose_artifacts_fill_its_storage_submits_no_more(world: World):
    await set_up_tenant(world, max_storage_bytes=1000)
    await submit(world, 1)
    await world.settle()
    (run,) = world.backend.launches
    ended = succeeded()
    ended.ended.artifact.size_bytes = 1000
    await world.report(run, progress(1), ended)
    with pytest.raises(QuotaExceeded, match="adapters take 1,000 bytes"):
        await submit(world, 1)


async def test_limits_that_are_lowered_stop_nothing(world: World):
    names = [await submit(world, 2) for _ in range(2)]
    await world.settle()
    world.with_tools(limits=replace(world.tools.limits, capacity_gpus=2))
    await submit(world, 2)
    world.clock.advance(6)
    await world.settle()
    assert {await world.state(name) for name in names} == {"STARTING"}


HARDWARE = Hardware(gpus=1, cpus=2, memory_bytes=8 * 2**30)


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"cpus_per_worker": 64.0}, "64 CPUs, and there are 2"),
        ({"num_workers": 3}, "3 CPUs, and there are 2"),
        ({"gpus_per_worker": 2.0}, "2 GPUs, and there are 1"),
        ({"memory_gib_per_worker": 500.0}, "500 GiB of memory, and there are 8"),
    ],
)
async def test_what_can_never_fit_where_runs_execute_fails_at_once_and_holds_no_place(world: World, cluster: dict, told: str):
    world.backend.fixed_hardware = HARDWARE
    world.with_tools(limits=Limits(max_running_runs=1))
    huge, small = await world.submit("huge", cluster=cluster), await world.submit("small")
    await world.settle()
    job = await world.job(huge)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "EXCEEDS_CAPACITY")
    assert told in job.message
    assert await world.state(small) == "STARTING"


async def test_a_capacity_that_is_not_set_is_what_there_is(world: World):
    world.backend.fixed_hardware = HARDWARE
    world.with_tools(limits=Limits(max_running_runs=10))
    names = [await submit(world, 0) for _ in range(3)]
    await world.settle()
    assert [await world.state(name) for name in names] == ["STARTING", "STARTING", "QUEUED"]
    assert "more than is free of 1 GPU and 2 CPUs" in (await world.job(names[2])).message


async def test_a_capacity_that_is_set_counts_and_its_jobs_wait_until_there_is_more(world: World):
    world.backend.fixed_hardware = HARDWARE
    world.with_tools(limits=Limits(max_running_runs=10, capacity_gpus=0.5))
    name = await submit(world, 1)
    await world.settle()
    assert ((await world.job(name)).reason, await world.state(name)) == ("EXCEEDS_CAPACITY", "QUEUED")
