"""What one row raises is that row's own: every loop goes on past it, its job says why, and it is counted."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from lorafleet.contract.layout import MANIFEST, JobLayout, join
from service.backends.base import Observation, RunRef
from service.control.admission import Limits
from service.control.packing import PackLimits
from service.core import telemetry
from service.core.resource_names import JobName
from service.db import jobs, row_faults
from service.db.database import TRY_AGAIN_S
from service.db.errors import Contended, Unwritable
from service.db.models import JobRow
from service.observability.metrics import MetricsCollector
from service.reconcile import stop
from service.reconcile.admit import admit_once
from service.reconcile.launch import launch_once
from service.reconcile.locked_rows import AGAIN_S
from service.reconcile.observe import observe_once
from service.reconcile.orphans import end_orphans_once
from service.reconcile.stop import notice_silence_once
from tests.service.reconcile.test_admit import with_policy
from tests.service.reconcile.test_join import about, pack_of_two
from tests.service.reconcile.test_orphans import late_launch
from tests.service.world import World, progress, succeeded


@pytest.fixture
def metrics() -> Iterator[MetricsCollector]:
    receiver = MetricsCollector()
    telemetry.listen(receiver)
    yield receiver
    telemetry.listen(None)


def counted(metrics: MetricsCollector, loop: str, reason: str) -> float:
    return metrics.registry.get_sample_value("lorafleet_row_errors_total", {"loop": loop, "reason": reason}) or 0.0


async def change(world: World, name: JobName, **values: Any) -> None:
    async with world.tools.db.transaction() as tx:
        await tx.session.execute(update(JobRow).where(JobRow.job_id == name.job_id).values(**values))


async def two_runs(world: World) -> tuple[tuple[JobName, str], tuple[JobName, str]]:
    """Two jobs that train, each in a run of its own: the first is the one that something is wrong with."""
    with_policy(world, limits=PackLimits(max_pack_size=1))
    world.with_tools(limits=Limits(max_running_runs=2))
    return await world.running("bad"), await world.running("good")


def raises_for(run: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def called(ref: RunRef) -> Any:
        if ref.run_id == run:
            raise KeyError("status")
        return await method(ref)

    return called


def put_in_place(uri: str, kind: str) -> None:
    """Something else than what the service looks for there."""
    path = Path(uri.removeprefix("file://"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "deep":
            path.write_text("[" * 100_000)
        case "large":
            with path.open("wb") as file:
                file.truncate(2**33)
        case _:
            path.write_text(json.dumps({"files": [1]}))


# Launch.


async def admitted(world: World, *job_ids: str) -> list[JobName]:
    names = [await world.submit(job_id) for job_id in job_ids]
    assert await admit_once(world.tools)
    return names


async def test_a_style_whose_spec_is_none_any_more_ends_alone_and_its_pack_is_launched(world: World, metrics: MetricsCollector):
    bad, good = await admitted(world, "bad", "good")
    await change(world, bad, spec={"training": 7})
    await launch_once(world.tools)
    job = await world.job(bad)
    assert (await world.state(bad), job.reason) == ("FAILED", "INVALID_SPEC")
    assert "base_model" in job.message
    assert await world.state(good) == "STARTING"
    assert counted(metrics, "launch", "INVALID_SPEC") == 1

    (run,) = world.backend.launches
    await world.report(run, about(progress(1), good))
    await world.report(run, about(succeeded(), good), idle=True)
    assert [await world.state(name) for name in (bad, good)] == ["FAILED", "SUCCEEDED"]


async def test_a_style_whose_folder_refuses_its_spec_ends_alone(world: World):
    bad = await world.submit("bad", output={"uri": f"file://{world.folder}/own/bad"})
    (good,) = await admitted(world, "good")
    put_in_place((await world.job(bad)).output_uri, "a file")
    await launch_once(world.tools)
    assert [await world.state(name) for name in (bad, good)] == ["FAILED", "STARTING"]


async def test_a_launch_that_raises_what_nobody_has_foreseen_costs_its_own_job_an_attempt(world: World, monkeypatch: pytest.MonkeyPatch):
    with_policy(world, limits=PackLimits(max_pack_size=1))
    world.with_tools(limits=Limits(max_running_runs=2))
    bad, good = [await world.submit(job_id) for job_id in ("bad", "good")]
    of_bad = (await world.job(bad)).output_uri
    launch = world.backend.launch

    async def launched(run: Any) -> str:
        if of_bad in str(await world.tools.store.get(run.manifest_uri)):
            raise ZeroDivisionError
        return await launch(run)

    monkeypatch.setattr(world.backend, "launch", launched)
    for _ in range(4):
        await world.settle()
        world.clock.advance(40)
    assert await world.state(good) == "STARTING"
    job = await world.job(bad)
    assert (await world.state(bad), job.reason) == ("FAILED", "ROW_ERROR")
    assert "ZeroDivisionError" in job.message


# Observation.


async def test_a_run_that_cannot_be_observed_holds_up_no_other_and_its_job_says_so(
    world: World, metrics: MetricsCollector, monkeypatch: pytest.MonkeyPatch
):
    (bad, bad_run), (good, good_run) = await two_runs(world)
    observe = world.backend.observe
    monkeypatch.setattr(world.backend, "observe", raises_for(bad_run, observe))
    world.backend.end(good_run)
    world.clock.advance(2)
    assert await observe_once(world.tools)
    assert await world.state(good) == "QUEUED"
    job = await world.job(bad)
    assert (await world.state(bad), job.reason) == ("RUNNING", "ROW_ERROR")
    assert "its run is held up, and is tried again: an error of the service (KeyError)" in job.message
    assert counted(metrics, "observe", "KeyError") == 1
    assert not await observe_once(world.tools), "it is put off, and not taken again at once"

    monkeypatch.setattr(world.backend, "observe", observe)
    world.clock.advance(AGAIN_S)
    await world.report(bad_run, progress(2))
    await observe_once(world.tools)
    job = await world.job(bad)
    assert (await world.state(bad), job.reason, job.message) == ("RUNNING", "", "")


async def test_a_word_of_a_backend_that_no_database_takes_ends_no_loop(world: World):
    """Half a surrogate pair and NUL: the end of a driver's log, cut somewhere."""
    name, run = await world.running()
    world.backend.end(run, "DRIVER_EXITED", "its last lines: \x00 and \ud83d")
    world.clock.advance(2)
    await world.settle()
    assert await world.state(name) == "QUEUED"
    assert "its last lines" in (await world.job(name)).message


async def test_a_member_on_whose_end_nothing_can_be_decided_fails_and_the_run_gives_its_place_back(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    (bad, good), run = await pack_of_two(world)
    value = jobs.value

    def raises(row: JobRow) -> Any:
        if row.job_id == bad.job_id and row.state != "FAILED":
            raise ValueError("of this row")
        return value(row)

    look = world.backend.observe

    async def then_raises(ref: RunRef) -> Observation:
        monkeypatch.setattr(jobs, "value", raises)
        return await look(ref)

    monkeypatch.setattr(world.backend, "observe", then_raises)
    world.backend.end(run)
    world.clock.advance(2)
    await observe_once(world.tools)
    assert (await world.state(bad), (await world.job(bad)).reason) == ("FAILED", "ROW_ERROR")
    assert await world.state(good) == "QUEUED"
    assert (await world.job(good)).attempts[0].HasField("end_time")


@pytest.mark.parametrize("kind", ["fifo", "deep", "large", "of no files"])
async def test_a_manifest_that_is_none_keeps_no_run_from_its_end(world: World, kind: str):
    """The artifact of a job that ended without a word is looked for in its folder, which its tenant writes to."""
    (bad, good), run = await pack_of_two(world)
    put_in_place(join(JobLayout((await world.job(bad)).output_uri).adapter, MANIFEST), kind)
    await world.commit_artifact(good)
    world.backend.end(run)
    world.clock.advance(2)
    await asyncio.wait_for(observe_once(world.tools), 60)
    assert await world.state(good) == "SUCCEEDED"
    assert await world.state(bad) == "QUEUED"


@pytest.mark.parametrize("text", [b"no JSON at all", b"[1]", b"", b'{"files": 7}'])
async def test_what_is_no_manifest_ends_no_job_that_said_nothing_well(world: World, text: bytes):
    (bad, good), run = await pack_of_two(world)
    await world.tools.store.put(join(JobLayout((await world.job(bad)).output_uri).adapter, MANIFEST), text)
    await world.commit_artifact(good)
    world.backend.end(run)
    world.clock.advance(2)
    await asyncio.wait_for(observe_once(world.tools), 60)
    assert (await world.state(bad), await world.state(good)) == ("QUEUED", "SUCCEEDED")


async def test_a_machine_too_busy_to_parse_a_manifest_is_no_reason_to_train_again(world: World, monkeypatch: pytest.MonkeyPatch):
    """The job that said nothing has an artifact: another attempt would commit a second one."""
    (job, _), run = await pack_of_two(world)
    await world.commit_artifact(job)
    parser = world.tools.candidates.planner.shapes.parser
    monkeypatch.setattr(parser, "_within_s", 0.0)
    world.backend.end(run)
    world.clock.advance(2)
    await asyncio.wait_for(observe_once(world.tools), 60)
    assert await world.state(job) == "RUNNING", "nothing is known of its end"
    monkeypatch.setattr(parser, "_within_s", 60.0)
    world.clock.advance(60)
    await asyncio.wait_for(observe_once(world.tools), 60)
    assert await world.state(job) == "SUCCEEDED"


async def test_the_manifest_of_a_newer_trainer_is_an_artifact(world: World):
    (job, _), run = await pack_of_two(world)
    manifest = b'{"format": "lorafleet-artifact-2", "files": {"a": {"size_bytes": 1, "sha256": "' + b"0" * 64 + b'"}}}'
    await world.tools.store.put(join(JobLayout((await world.job(job)).output_uri).adapter, MANIFEST), manifest)
    world.backend.end(run)
    world.clock.advance(2)
    await asyncio.wait_for(observe_once(world.tools), 60)
    assert await world.state(job) == "SUCCEEDED"


# Stops.


async def test_a_run_that_cannot_be_stopped_holds_up_no_other_stop(world: World, monkeypatch: pytest.MonkeyPatch):
    (bad, bad_run), (good, good_run) = await two_runs(world)
    monkeypatch.setattr(world.backend, "stop", raises_for(bad_run, world.backend.stop))
    for name in (bad, good):
        await world.jobs.cancel(name)
    world.clock.advance(world.tools.stop.grace_period_s + 1)
    await world.settle()
    assert world.backend.stops == [good_run]
    assert [await world.state(name) for name in (bad, good)] == ["STOPPING", "CANCELLED"]


async def test_a_silent_run_that_cannot_be_judged_hides_no_other(world: World, metrics: MetricsCollector, monkeypatch: pytest.MonkeyPatch):
    (_, bad_run), (_, good_run) = await two_runs(world)
    states = stop._states

    async def raises(tx: Any, run: Any) -> Any:
        if run.id == bad_run:
            raise ValueError("of this row")
        return await states(tx, run)

    monkeypatch.setattr(stop, "_states", raises)
    world.clock.advance(world.tools.stop.heartbeat_timeout_s + 1)
    await notice_silence_once(world.tools)
    await world.settle()
    assert world.backend.stops == [good_run]
    assert counted(metrics, "silence", "ValueError")


async def test_an_orphan_that_cannot_be_ended_hides_no_other(world: World, monkeypatch: pytest.MonkeyPatch):
    runs = [f"run-{number:016x}" for number in range(3)]
    for run in runs:
        await late_launch(world, run)
    monkeypatch.setattr(world.backend, "stop", raises_for(runs[0], world.backend.stop))
    await end_orphans_once(world.tools)
    assert world.backend.alive == runs[:1]


# What is in rows.


async def test_broken_progress_of_a_running_job_stops_no_admission_and_no_report(world: World):
    (bad, bad_run), _ = await two_runs(world)
    world.with_tools(limits=Limits(max_running_runs=3))
    await change(world, bad, progress=b"\xff\xff\xff")
    third = await world.submit("third")
    await world.settle()
    assert await world.state(third) == "STARTING"
    await world.report(bad_run, progress(3))
    assert (await world.job(bad)).progress.step == 3


async def test_a_job_whose_spec_is_none_any_more_can_be_read_and_joined_by_others(world: World):
    (one, two), run = await pack_of_two(world)
    late, later = await world.submit("late"), await world.submit("later")
    await world.settle()
    assert len((await world.report(run)).joining) == 2
    await change(world, late, spec={"no": "spec"})
    (told,) = (await world.report(run, about(progress(2), one), about(progress(2), two))).joining
    assert told.job == str(later), "the run is told of the others"
    assert (await world.job(late)).spec.base_model.uri == ""


# Logs.


@pytest.mark.parametrize("kind", ["fifo", "a folder"])
async def test_a_log_that_cannot_be_written_keeps_no_other_from_its_own(world: World, kind: str):
    (bad, good), run = await pack_of_two(world)
    world.backend.written[run] = b"all\n"
    await world.copy_logs()
    put_in_place(JobLayout((await world.job(bad)).output_uri).log(1), kind)
    world.backend.written[run] += b"[%s] mine\nend\n" % str(good).encode()
    world.backend.end(run)
    for _ in range(6):
        world.clock.advance(10)
        await world.settle()
        await asyncio.wait_for(world.copy_logs(), 60)
    log = await world.tools.store.get(JobLayout((await world.job(good)).output_uri).log(1)) or b""
    assert log.startswith(b"all\n[tenants/acme/jobs/two] mine\nend\n")
    assert world.backend.forgotten == [run], "the copy ends, without the log that nobody can write"


# The one place.


async def test_what_raises_fails_alone_whatever_stands_beside_it(metrics: MetricsCollector):
    done, marked = list[int](), list[int]()

    async def act(some: Any) -> None:
        if {3, 8} & set(some):
            raise OverflowError
        done.extend(some)

    async def mark(thing: int, error: Exception) -> None:
        marked.append(thing)
        raise RuntimeError("marking may raise, too")

    await row_faults.apart("admit", range(10), act, str, mark)
    assert (sorted(done), marked) == ([0, 1, 2, 4, 5, 6, 7, 9], [3, 8])
    assert counted(metrics, "admit", "OverflowError") == 2


@pytest.mark.parametrize("error", [Contended("another came first"), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_what_is_nobodys_row_passes(error: BaseException):
    async def act(some: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        await row_faults.apart("admit", [1, 2], act, str)
    with pytest.raises(type(error)), row_faults.own("admit", "1"):
        raise error


def test_what_an_unforeseen_error_says_is_not_for_tenants():
    assert "s3cret" not in row_faults.told(ValueError("s3cret"))


async def test_a_database_that_cannot_be_written_for_a_moment_is_no_rows_own(world: World, metrics: MetricsCollector):
    job = await world.submit("job")
    db = world.tools.db
    db._trouble = (db.clock.monotonic_s(), Unwritable.for_now("its disk is full", reason="DATABASE_DISK_FULL"))
    with pytest.raises(Unwritable):
        await admit_once(world.tools)
    assert counted(metrics, "admit", "DATABASE_DISK_FULL") == 0
    world.clock.advance(max(TRY_AGAIN_S, AGAIN_S))
    await world.settle()
    assert await world.state(job) == "STARTING"
