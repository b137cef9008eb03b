"""Reports are applied once, in order, from the run that has the job now, and from nobody else."""

import pytest

from lorafleet.errors import FailedPrecondition, InvalidInput, Unauthenticated
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from tests.service.world import World, failed, progress, succeeded


def numbered(event: rpb.RunEvent, sequence: int) -> rpb.RunEvent:
    event.sequence = sequence
    return event


async def apply(world: World, run: str, *happened: rpb.RunEvent, token: str | None = None) -> rpb.ReportResponse:
    request = rpb.ReportRequest(run=run, source="driver", events=happened)
    return await world.reports.apply(world.backend.tokens[run] if token is None else token, request)


async def test_the_first_training_step_makes_the_job_run(world: World):
    name, run = await world.started()
    await world.report(run, progress(0, phase="preparing"))
    assert await world.state(name) == "STARTING"
    await world.report(run, progress(0))
    assert await world.state(name) == "STARTING"
    await world.report(run, progress(1, loss=0.5))
    job = await world.job(name)
    assert (job.state, job.progress.loss) == (pb.JOB_STATE_RUNNING, 0.5)
    assert job.HasField("first_step_time")


async def test_a_repeated_report_changes_nothing(world: World):
    name, run = await world.started()
    first = await apply(world, run, numbered(progress(1), 1), numbered(progress(2), 2))
    before = await world.job(name)
    again = await apply(world, run, numbered(progress(1), 1), numbered(progress(2), 2))
    assert (first.acked_sequence, again.acked_sequence) == (2, 2)
    assert (await world.job(name)).etag == before.etag


async def test_sources_count_by_themselves(world: World):
    name, run = await world.started()
    await apply(world, run, numbered(progress(1), 7))
    request = rpb.ReportRequest(run=run, source="worker-0", events=[numbered(progress(9), 1)])
    answer = await world.reports.apply(world.backend.tokens[run], request)
    assert answer.acked_sequence == 1
    assert (await world.job(name)).progress.step == 9


async def test_what_newer_progress_leaves_out_is_kept(world: World):
    name, run = await world.running()
    await world.report(run, progress(5, held_out_loss=0.3, checkpoint_step=5), progress(6))
    job = await world.job(name)
    assert (job.progress.step, job.progress.held_out_loss, job.progress.checkpoint_step) == (6, 0.3, 5)


@pytest.mark.parametrize("token", ["", "nonsense", "run-0.00"])
async def test_a_wrong_token_is_refused(world: World, token: str):
    _, run = await world.started()
    with pytest.raises(Unauthenticated):
        await apply(world, run, token=token)


async def test_the_token_of_another_run_is_refused(world: World):
    _, first = await world.started()
    world.backend.end(first)
    world.clock.advance(60)
    await world.settle()
    world.clock.advance(60)
    await world.settle()
    second = world.backend.launches[-1]
    assert second != first
    with pytest.raises(Unauthenticated):
        await apply(world, second, token=world.backend.tokens[first])


async def test_a_run_that_was_replaced_is_refused(world: World):
    name, run = await world.running()
    world.backend.end(run)
    world.clock.advance(60)
    await world.settle()
    with pytest.raises(FailedPrecondition) as refused:
        await world.report(run, succeeded())
    assert refused.value.reason == "STALE_ATTEMPT"
    assert await world.state(name) == "QUEUED"


async def test_the_first_word_about_the_end_counts(world: World):
    name, run = await world.running()
    await world.report(run, failed("NAN_LOSS", retryable=False))
    await world.report(run, succeeded())
    job = await world.job(name)
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, "NAN_LOSS")
    assert not job.HasField("artifact")


async def test_progress_after_the_end_is_acknowledged_and_ignored(world: World):
    name, run = await world.running()
    await world.report(run, succeeded())
    before = await world.job(name)
    answer = await world.report(run, progress(99))
    assert answer.acked_sequence == 3
    assert (await world.job(name)).etag == before.etag


@pytest.mark.parametrize(
    "event",
    [
        rpb.RunEvent(sequence=9, job="tenants/acme/jobs/other", progress=pb.Progress(step=1)),
        rpb.RunEvent(sequence=9, ended=rpb.StyleEnded()),
        rpb.RunEvent(sequence=9, ended=rpb.StyleEnded(outcome=rpb.STYLE_OUTCOME_SUCCEEDED)),
    ],
)
async def test_a_senseless_event_is_refused_whole(world: World, event: rpb.RunEvent):
    name, run = await world.running()
    before = await world.job(name)
    with pytest.raises(InvalidInput):
        await apply(world, run, event)
    assert (await world.job(name)).etag == before.etag


async def test_a_run_that_reports_is_given_a_newer_token_before_its_own_expires(world: World):
    _, run = await world.started()
    assert (await apply(world, run)).token == ""
    world.clock.advance(world.tools.tokens.ttl_s * 0.6)
    newer = (await apply(world, run)).token
    world.clock.advance(world.tools.tokens.ttl_s * 0.6)
    with pytest.raises(Unauthenticated) as refused:
        await apply(world, run)
    assert refused.value.reason == "RUN_TOKEN_EXPIRED"
    assert (await apply(world, run, token=newer)).acked_sequence == 0


async def test_a_message_keeps_its_words_and_not_their_colours(world: World):
    name, run = await world.running()
    await world.report(run, failed(reason="RUN_FAILED", message="\x1b[36mray::train()\x1b[39m: no memory", retryable=False))
    assert "ray::train(): no memory" in (await world.job(name)).message


@pytest.mark.parametrize("elsewhere", ["tenants/other/jobs/theirs/adapter", "tenants/acme/jobs/another/adapter", "tenants/acme"])
async def test_an_artifact_outside_its_jobs_folder_is_refused(world: World, elsewhere: str):
    name, run = await world.running("mine")
    for uri in (f"file://{world.folder}/artifacts/{elsewhere}", f"file://{world.folder}/artifacts/tenants/acme/jobs/mine/../{elsewhere}"):
        with pytest.raises(InvalidInput, match="not in") as refused:
            await world.report(run, succeeded(uri))
        assert refused.value.reason == "ARTIFACT_ELSEWHERE"
    assert await world.state(name) == "RUNNING"
    await world.report(run, succeeded())
    assert await world.state(name) == "SUCCEEDED"


async def test_an_artifact_of_another_style_of_the_pack_is_refused(world: World):
    first, run = await world.running("one")
    theirs = f"file://{world.folder}/artifacts/tenants/acme/jobs/one-more/adapter"  # begins with the same letters
    with pytest.raises(InvalidInput):
        await world.report(run, succeeded(theirs))
    assert await world.state(first) == "RUNNING"
