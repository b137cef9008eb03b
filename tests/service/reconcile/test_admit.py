"""Admission: packs of what is queued, clear refusals, waits that are told once, and a queue of thousands."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from lorafleet import spec
from lorafleet.contract import layout
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.v1 import training_service_pb2 as pb
from service.control import packing
from service.control.admission import Limits
from service.control.lifecycle import JobState
from service.control.memory import GIB
from service.control.packing import PackLimits
from service.core.resource_names import JobName
from service.db import events, jobs, queue
from service.db.errors import Unreachable
from service.db.models import JobRow
from service.jobs.creation import NewJob
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy, base_of
from service.planning.queued_jobs import Candidates
from service.reconcile import admit, wait_reasons
from service.reconcile.admit import admit_once
from service.reconcile.launch import launch_once
from service.reconcile.observe import observe_once
from tests.service.planning.test_base_kinds import SCHEDULERS, write_scheduler
from tests.service.planning.test_base_shapes import DEMO, standing_still, write_base, write_still
from tests.service.world import World, failed, progress, succeeded


async def manifest(world: World, run: str) -> RunManifest:
    uri = layout.run_manifest(world.tools.locations.artifacts_uri, run)
    return RunManifest.model_validate_json(await world.tools.store.get(uri) or b"")


async def packs(world: World) -> list[list[str]]:
    """Job ids of every launched run, in the order of launch."""
    return [[style.job.rpartition("/")[2] for style in (await manifest(world, run)).pack] for run in world.backend.launches]


def with_policy(world: World, **policy: Any) -> None:
    world.with_tools(candidates=Candidates(Planner(ShapeCache(world.tools.store, world.clock), Policy(**policy))))


async def submit(world: World, tenant: str, job_id: str, **changes: Any) -> None:
    await world.jobs.create(NewJob(tenant=tenant, job_id=job_id, request_id="", spec=world.spec(**changes)))


async def submit_all(world: World, num: int) -> list[JobName]:
    """job-0, job-1, ..., a second apart."""
    names = []
    for number in range(num):
        names.append(await world.submit(f"job-{number}"))
        world.clock.advance(1)
    return names


async def test_what_is_queued_trains_in_one_run(world: World):
    names = await submit_all(world, 5)
    await world.settle()
    assert [sorted(pack) for pack in await packs(world)] == [[f"job-{number}" for number in range(5)]]
    assert {(await world.job(name)).attempts[0].pack_size for name in names} == {5}
    assert {await world.state(name) for name in names} == {"STARTING"}


async def test_a_pack_is_no_larger_than_the_limit_and_the_rest_waits(world: World):
    with_policy(world, limits=PackLimits(max_pack_size=3))
    names = await submit_all(world, 5)
    await world.settle()
    assert [sorted(pack) for pack in await packs(world)] == [["job-0", "job-1", "job-2"]]
    waiting = await world.job(names[4])
    assert (waiting.state, waiting.reason) == (pb.JOB_STATE_QUEUED, "NO_FREE_RUN")
    assert "1 of 1 at work" in waiting.message


async def test_styles_are_spread_over_the_free_runs(world: World):
    world.with_tools(limits=Limits(max_running_runs=2))
    await submit_all(world, 6)
    await world.settle()
    assert [len(pack) for pack in await packs(world)] == [3, 3]


async def test_company_is_told_to_the_run_and_remembered_on_retry(world: World):
    """A style that trained in company must keep its bits when it goes on alone."""
    names = await submit_all(world, 2)
    await world.settle()
    (run,) = world.backend.launches
    assert (await manifest(world, run)).in_company
    events = [progress(1), progress(1)]
    for name, event in zip(names, events, strict=True):
        event.job = str(name)
    done = succeeded()
    done.job = str(names[0])
    await world.report(run, *events, done)
    world.backend.end(run)
    world.clock.advance(10)
    await world.settle()
    world.clock.advance(10)
    await world.settle()
    assert [len(pack) for pack in await packs(world)] == [2, 1]
    assert (await manifest(world, world.backend.launches[1])).in_company


async def test_a_lone_style_trains_without_padding_and_goes_on_alone(world: World):
    name, run = await world.running("lone")
    assert not (await manifest(world, run)).in_company
    world.backend.end(run)
    world.clock.advance(2)
    await world.settle()
    await world.submit("other")
    world.clock.advance(6)
    await world.jobs.cancel(await world.submit("gone"))
    await world.settle()
    assert await world.state(name) in {"STARTING", "QUEUED"}
    while len(world.backend.launches) < 3:
        world.backend.end(world.backend.launches[-1])
        world.clock.advance(30)
        await world.settle()
    assert [len(pack) for pack in await packs(world)] == [1, 1, 1]


async def test_a_retried_job_waits_for_no_old_companion(world: World):
    first = await submit_all(world, 2)
    await world.settle()
    (run,) = world.backend.launches
    broken = failed("STORE_UNREACHABLE", retryable=True)
    broken.job = str(first[0])
    done = succeeded()
    done.job = str(first[1])
    await world.report(run, progress(1), broken, done)
    world.backend.end(run)
    world.clock.advance(2)
    await observe_once(world.tools)
    world.clock.advance(6)
    await world.submit("new")
    await world.settle()
    assert sorted((await packs(world))[-1]) == ["job-0", "new"]


async def test_tenants_share_a_run_only_if_all_of_them_want_it(world: World):
    world.with_tools(limits=Limits(max_running_runs=3))
    await submit(world, "acme", "open-1", scheduling={"sharing": "anyone"})
    await submit(world, "blue", "open-2", scheduling={"sharing": "anyone"})
    await submit(world, "coal", "own")
    await world.settle()
    assert sorted(len(pack) for pack in await packs(world)) == [1, 1, 1], "spread over three free runs"


async def test_an_isolated_tenant_never_shares(world: World):
    with_policy(world, isolated_tenants=frozenset({"acme"}))
    for tenant in ("acme", "blue", "coal"):
        await submit(world, tenant, f"of-{tenant}", scheduling={"sharing": "anyone"})
        world.clock.advance(1)
    for _ in range(2):
        await world.settle()
        world.backend.end(world.backend.launches[-1])
        world.clock.advance(3)
    assert [sorted(pack) for pack in await packs(world)] == [["of-acme"], ["of-blue", "of-coal"]]


async def test_a_style_that_fits_no_worker_fails_with_the_arithmetic_and_the_others_go_on(world: World):
    with_policy(world, limits=PackLimits(worker_memory_bytes=2 * GIB))
    base = {"base_model": {"uri": f"file://{DEMO}"}}
    large = await world.submit("large", **base, training={"micro_batch_size": 1024})
    small = await world.submit("small", **base)
    await world.settle()
    job = await world.job(large)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "PACK_TOO_LARGE")
    assert "activations of 1024 pictures" in job.message
    assert "but a worker has 2.0 GiB" in job.message
    assert job.HasField("end_time")
    assert await world.state(small) == "STARTING"


async def test_priority_starts_first(world: World):
    with_policy(world, limits=PackLimits(max_pack_size=1))
    await world.submit("early")
    await world.submit("urgent", scheduling={"priority": 10})
    await world.settle()
    assert await packs(world) == [["urgent"]]


async def test_a_job_that_is_cancelled_while_packs_are_planned_is_not_started(world: World, monkeypatch: pytest.MonkeyPatch):
    kept, cancelled = await world.submit("kept"), await world.submit("cancelled")
    plan = admit._plan

    async def then_cancel(tools, seen):
        planned = await plan(tools, seen)
        await world.jobs.cancel(cancelled)
        return planned

    monkeypatch.setattr(admit, "_plan", then_cancel)
    await world.settle()
    assert (await world.state(kept), await world.state(cancelled)) == ("STARTING", "CANCELLED")
    assert await packs(world) == [["kept"]]


async def test_who_knows_why_it_waits_is_not_told_again(world: World):
    with_policy(world, limits=PackLimits(max_pack_size=1))
    await world.submit("first")
    world.clock.advance(1)
    second = await world.submit("second")
    await world.settle()
    before = (await world.job(second)).etag
    for _ in range(3):
        await admit_once(world.tools)
    assert (await world.job(second)).etag == before


async def test_thousands_are_told_in_slices_each_once(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wait_reasons, "JOBS_AT_ONCE", 4)
    with_policy(world, limits=PackLimits(max_pack_size=1))
    names = await submit_all(world, 10)
    assert await admit_once(world.tools), "there is more to tell"
    await world.settle()
    assert {(await world.job(name)).reason for name in names[1:]} == {"NO_FREE_RUN"}
    async with world.tools.db.snapshot() as tx:
        assert (await events.service(tx)).last_seq == 10 + 9 + 2


async def test_while_nothing_has_changed_the_queue_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.running("first")
    await world.submit("second")
    await world.settle()
    monkeypatch.setattr(Candidates, "of_queue", None)
    assert not await admit_once(world.tools)


async def test_a_round_that_raises_is_held_again_at_once(world: World, monkeypatch: pytest.MonkeyPatch):
    """It was taken for held, and the queue stood still until the next round by time."""
    name = await world.submit("job")

    async def away(*_: Any) -> bool:
        raise Unreachable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "lock_admission", away)
        with pytest.raises(Unreachable):
            await admit_once(world.tools)
    assert await admit_once(world.tools)
    assert await world.state(name) == "ADMITTED"


async def test_specs_are_parsed_once(world: World, monkeypatch: pytest.MonkeyPatch):
    with_policy(world, limits=PackLimits(max_pack_size=1))
    await submit_all(world, 4)
    asked = []
    candidate = Planner.candidate

    def counted(self, uid, *arguments, **more):
        asked.append(uid)
        return candidate(self, uid, *arguments, **more)

    monkeypatch.setattr(Planner, "candidate", counted)
    for _ in range(4):
        await world.settle()
        world.backend.end(world.backend.launches[-1])
        world.clock.advance(2)
    assert len(asked) == len(set(asked)) == 4


async def _change_row(world: World, name: JobName, **values: Any) -> None:
    """What no call does: an older server, a migration or a hand has."""
    async with world.tools.db.transaction() as tx:
        await tx.session.execute(update(JobRow).where(JobRow.job_id == name.job_id).values(**values))


async def test_a_spec_that_is_none_any_more_fails_its_own_job_and_the_others_start(world: World):
    names = await submit_all(world, 3)
    await _change_row(world, names[0], spec={"base_model": {"uri": "file:///x"}, "training": {"max_steps": -1}})
    await _change_row(world, names[1], spec=["no", "spec"])
    await world.settle()
    assert await packs(world) == [["job-2"]]
    for name in names[:2]:
        job = await world.job(name)
        assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "SPEC_UNREADABLE")
        assert "its spec cannot be read any more" in job.message
    assert "training.max_steps" in (await world.job(names[0])).message


async def test_a_spec_of_a_newer_server_waits_for_it_and_the_others_start(world: World):
    newer, known = await world.submit("newer"), await world.submit("known")
    fields = world.spec().model_dump(mode="json")
    await _change_row(world, newer, spec={**fields, "training": {**fields["training"], "of_next_year": 1}})
    await world.settle()
    assert (await world.state(newer), await world.state(known)) == ("QUEUED", "STARTING")
    assert (await world.job(newer)).reason == "SPEC_UNREADABLE"


async def test_a_job_that_no_decision_can_be_made_on_waits_with_its_reason_and_the_others_start(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    names = await submit_all(world, 5)
    sift = packing.sift

    uid = (await world.job(names[3])).uid

    def raises(queue, limits, hardware):
        if any(job.uid == uid for job in queue):
            raise OverflowError("of one job")
        return sift(queue, limits, hardware)

    monkeypatch.setattr(packing, "sift", raises)
    await world.settle()
    assert [sorted(pack) for pack in await packs(world)] == [["job-0", "job-1", "job-2", "job-4"]]
    job = await world.job(names[3])
    assert (job.state, job.reason) == (pb.JOB_STATE_QUEUED, "ROW_ERROR")
    assert "OverflowError" in job.message


async def test_a_job_that_cannot_be_written_is_passed_by_and_its_pack_starts_without_it(world: World, monkeypatch: pytest.MonkeyPatch):
    names = await submit_all(world, 3)
    save = jobs.save

    def raises(tx, row, job):
        if row.job_id == "job-1" and job.state is not JobState.QUEUED:
            raise ValueError("of one row")
        return save(tx, row, job)

    monkeypatch.setattr(jobs, "save", raises)
    await world.settle()
    assert [sorted(pack) for pack in await packs(world)] == [["job-0", "job-2"]]
    assert [await world.state(name) for name in names] == ["STARTING", "QUEUED", "STARTING"]


async def test_while_a_base_is_read_its_job_waits_and_the_others_start(world: World, tmp_path: Path):
    with standing_still() as parser:
        shapes = ShapeCache(world.tools.store, world.clock, parser)
        world.with_tools(candidates=Candidates(Planner(shapes, Policy())), limits=Limits(max_running_runs=2))
        await shapes.read({("blue", base_of(spec.parse(world.spec())))}, within_s=60)  # on however slow a machine
        slow = await world.submit("slow", base_model={"uri": write_still(tmp_path / "slow")})
        await submit(world, "blue", "quick")
        while await admit_once(world.tools):
            pass
        job = await world.job(slow)
        assert (job.state, job.reason) == (pb.JOB_STATE_QUEUED, "READING_BASE")
        await launch_once(world.tools)
        assert await packs(world) == [["quick"]]
    await world.settle()
    assert await packs(world) == [["quick"], ["slow"]], "without waiting for the next round by time"


@pytest.mark.parametrize("name", ["sample", "another word"])
async def test_a_job_on_a_base_whose_objective_is_not_trained_ends_before_launch(world: World, tmp_path: Path, name: str):
    text, said = SCHEDULERS[name]
    bad = await world.submit("bad", base_model={"uri": write_base(tmp_path / "bad")})
    good = await world.submit("good", base_model={"uri": write_base(tmp_path / "good")})
    write_scheduler(tmp_path / "bad", text)
    await world.settle()
    job = await world.job(bad)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "BASE_MODEL_UNSUPPORTED")
    assert said in job.message
    assert await packs(world) == [["good"]]
    assert await world.state(good) == "STARTING"
