"""A batch's life over the API: its counts, its jobs page by page, its end on request, and another try of what failed."""

import pytest

from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from service.control.admission import Limits
from service.core.resource_names import JobName, parse_job
from service.db import jobs as job_rows
from service.jobs import batches as batches_module
from tests.service.api.batch_requests import create, header, item, parts
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.world import failed, progress, succeeded

NIGHT = "tenants/acme/batches/night"


def counts(batch: pb.Batch) -> dict[str, int]:
    return {jobs_pb.JobState.Name(count.state).removeprefix("JOB_STATE_"): count.count for count in batch.counts}


async def batch_of(api: Api, count: int, *, sharing: str = "nobody") -> list[JobName]:
    """A stored batch, whose jobs run one after another unless they share; the names of its jobs in order."""
    await create(api, [item(scheduling={"sharing": sharing}) for _ in range(count)])
    return [JobName("acme", f"night-{index:05d}") for index in range(count)]


async def get(api: Api) -> pb.Batch:
    return await api.batches.GetBatch(pb.GetBatchRequest(name=NIGHT))


async def listed(api: Api, **fields) -> list[int]:
    page = await api.batches.ListBatchJobs(pb.ListBatchJobsRequest(**{"parent": NIGHT, **fields}))
    return [job.batch_index for job in page.training_jobs]


async def runs_of(api: Api, names: list[JobName]) -> list[str]:
    return [(await api.world.job(name)).attempts[-1].run for name in names]


async def run_of(api: Api, name: JobName) -> str:
    """The run of a job that trains."""
    await api.world.settle()
    [run] = await runs_of(api, [name])
    await api.world.report(run, progress(1))
    return run


async def end(api: Api, run: str, *events) -> None:
    """The run reports how its style ended, and goes."""
    await api.world.report(run, *events)
    api.world.backend.end(run)
    api.world.clock.advance(5)
    await api.world.settle()


async def test_counts_and_end_time_follow_the_jobs(api: Api):
    first, second = await batch_of(api, 2)
    assert counts(await get(api)) == {"QUEUED": 2}
    run = await run_of(api, first)
    assert counts(await get(api)) == {"QUEUED": 1, "RUNNING": 1}
    await end(api, run, succeeded())
    assert not (await get(api)).HasField("end_time")
    await end(api, await run_of(api, second), failed("NAN_LOSS", retryable=False))
    batch = await get(api)
    assert counts(batch) == {"SUCCEEDED": 1, "FAILED": 1}
    assert batch.end_time == (await api.world.job(second)).end_time


async def test_batches_are_listed_newest_first_with_their_counts(api: Api):
    for place in range(3):
        await create(api, [item() for _ in range(place + 1)], batch_id=f"b-{place}")
        api.world.clock.advance(1)
    request = pb.ListBatchesRequest(parent="tenants/acme", page_size=2)
    first = await api.batches.ListBatches(request)
    assert [(batch.name[-3:], counts(batch)) for batch in first.batches] == [("b-2", {"QUEUED": 3}), ("b-1", {"QUEUED": 2})]
    await create(api, [item()], batch_id="newer")
    request.page_token = first.next_page_token
    second = await api.batches.ListBatches(request)
    assert ([batch.name[-3:] for batch in second.batches], second.next_page_token) == (["b-0"], "")
    assert not (await api.batches.ListBatches(pb.ListBatchesRequest(parent="tenants/other"))).batches


async def test_jobs_are_listed_in_the_order_of_their_items(api: Api):
    await batch_of(api, 5)
    request, seen = pb.ListBatchJobsRequest(parent=NIGHT, page_size=2), []
    while True:
        page = await api.batches.ListBatchJobs(request)
        seen += [job.batch_index for job in page.training_jobs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [0, 1, 2, 3, 4]


async def test_jobs_are_filtered_as_everywhere(api: Api):
    await create(api, [item(labels={"team": "red" if place % 2 else "blue"}) for place in range(4)])
    await create(api, [item(labels={"team": "red"})], batch_id="other")
    assert await listed(api, filter='labels.team = "red"') == [1, 3]
    await api.jobs.CancelTrainingJob(jobs_pb.CancelTrainingJobRequest(name="tenants/acme/jobs/night-00001"))
    assert await listed(api, filter='labels.team = "red" AND state = QUEUED') == [3]


@pytest.mark.parametrize("change", [{"filter": "state = QUEUED"}, {"parent": "tenants/acme/batches/other"}])
async def test_a_page_token_of_another_query_is_refused(api: Api, change: dict[str, str]):
    await batch_of(api, 2)
    await create(api, [item()], batch_id="other")
    token = (await api.batches.ListBatchJobs(pb.ListBatchJobsRequest(parent=NIGHT, page_size=1))).next_page_token
    answer = await refusal(listed(api, **{"page_size": 1, "page_token": token, **change}))
    assert answer.reason == "BAD_PAGE_TOKEN"


async def test_a_job_tokens_page_is_no_batches_page(api: Api):
    await batch_of(api, 2)
    token = (await api.jobs.ListTrainingJobs(jobs_pb.ListTrainingJobsRequest(parent="tenants/acme", page_size=1))).next_page_token
    answer = await refusal(api.batches.ListBatches(pb.ListBatchesRequest(parent="tenants/acme", page_token=token)))
    assert answer.reason == "BAD_PAGE_TOKEN"


async def test_an_unknown_batch(api: Api):
    for call in (
        api.batches.GetBatch(pb.GetBatchRequest(name=NIGHT)),
        api.batches.CancelBatch(pb.CancelBatchRequest(name=NIGHT)),
        api.batches.RetryFailed(pb.RetryFailedRequest(name=NIGHT)),
        api.batches.ListBatchJobs(pb.ListBatchJobsRequest(parent=NIGHT)),
        anext(aiter(api.batches.WatchBatch(pb.WatchBatchRequest(name=NIGHT)))),
    ):
        answer = await refusal(call)
        assert (answer.code, answer.reason) == ("NOT_FOUND", "BATCH_NOT_FOUND")


async def test_another_tenants_batch_is_not_there(api: Api):
    await batch_of(api, 1)
    answer = await refusal(api.batches.GetBatch(pb.GetBatchRequest(name=NIGHT.replace("acme", "other"))))
    assert answer.code == "NOT_FOUND"


@pytest.mark.parametrize("name", ["", "night", "tenants/acme/batches/", "tenants/acme/jobs/night", f"{NIGHT}/x", "tenants/acme/batches/A"])
async def test_a_bad_name(api: Api, name: str):
    for call, field in (
        (api.batches.GetBatch(pb.GetBatchRequest(name=name)), "name"),
        (api.batches.CancelBatch(pb.CancelBatchRequest(name=name)), "name"),
        (api.batches.RetryFailed(pb.RetryFailedRequest(name=name)), "name"),
        (api.batches.ListBatchJobs(pb.ListBatchJobsRequest(parent=name)), "parent"),
    ):
        answer = await refusal(call)
        assert (answer.code, list(answer.fields)) == ("INVALID_ARGUMENT", [field])


async def test_cancel_ends_what_waits_and_stops_what_trains(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches_module, "SLICE", 2)
    names = await batch_of(api, 6)
    run = await run_of(api, names[0])
    other = await api.world.submit("other")
    batch = await api.batches.CancelBatch(pb.CancelBatchRequest(name=NIGHT))
    assert counts(batch) == {"CANCELLED": 5, "STOPPING": 1}
    assert await api.world.state(other) == "QUEUED", "of another batch, or of none"
    directives = (await api.world.report(run)).directives
    assert [directive.job for directive in directives] == [str(names[0])]


async def test_a_pack_is_stopped_with_its_last_member(api: Api):
    await batch_of(api, 3, sharing="tenant")
    await create(api, [item(scheduling={"sharing": "tenant"})], batch_id="other")
    await api.world.settle()
    [run] = api.world.backend.launches
    await api.world.report(run, progress(1))
    for name in (NIGHT, "tenants/acme/batches/other"):
        assert run not in api.world.backend.stops, "a member trains on"
        await api.batches.CancelBatch(pb.CancelBatchRequest(name=name))
        api.world.clock.advance(api.world.tools.stop.grace_period_s + 1)
        await api.world.report(run)  # it is alive
        await api.world.settle()
    assert run in api.world.backend.stops


async def test_a_cancelled_run_that_does_not_go_is_stopped_the_hard_way(api: Api):
    [name] = await batch_of(api, 1)
    run = await run_of(api, name)
    await api.batches.CancelBatch(pb.CancelBatchRequest(name=NIGHT))
    api.world.clock.advance(api.world.tools.stop.grace_period_s + 1)
    await api.world.settle()
    assert run in api.world.backend.stops
    assert counts(await get(api)) == {"CANCELLED": 1}


async def test_cancel_leaves_what_has_ended_and_may_be_repeated(api: Api):
    names = await batch_of(api, 2)
    await end(api, await run_of(api, names[0]), succeeded())
    cancel = pb.CancelBatchRequest(name=NIGHT)
    first = await api.batches.CancelBatch(cancel)
    assert await api.batches.CancelBatch(cancel) == first
    assert await api.world.state(names[0]) == "SUCCEEDED"


async def failed_batch(api: Api, count: int = 1) -> list[JobName]:
    names = await batch_of(api, count)
    for name in names:
        await end(api, await run_of(api, name), failed("NAN_LOSS", retryable=False))
    return names


async def retry(api: Api) -> pb.Batch:
    return await api.batches.RetryFailed(pb.RetryFailedRequest(name=NIGHT))


async def test_failed_jobs_are_tried_again_and_may_succeed(api: Api):
    [name] = await failed_batch(api)
    batch = await retry(api)
    assert (counts(batch), batch.HasField("end_time")) == ({"QUEUED": 1}, False)
    await end(api, await run_of(api, name), succeeded())
    job = await api.world.job(name)
    assert [attempt.number for attempt in job.attempts] == [1, 2]
    assert counts(await get(api)) == {"SUCCEEDED": 1}


async def test_retry_leaves_all_others_and_may_be_repeated(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches_module, "SLICE", 2)
    names = await failed_batch(api, 5)
    await api.batches.CancelBatch(pb.CancelBatchRequest(name=NIGHT))
    assert counts(await retry(api)) == {"QUEUED": 5}
    await api.jobs.CancelTrainingJob(jobs_pb.CancelTrainingJobRequest(name=str(names[4])))
    again = await retry(api)
    assert counts(again) == {"QUEUED": 4, "CANCELLED": 1}


async def test_a_failed_job_that_left_an_artifact_stays(api: Api):
    first, _ = await failed_batch(api, 2)
    await api.world.commit_artifact(first)
    assert counts(await retry(api)) == {"FAILED": 1, "QUEUED": 1}
    assert await api.world.state(first) == "FAILED"


async def test_a_failed_job_whose_folder_another_took_over_stays(api: Api):
    out = f"file://{api.world.folder}/out"
    await create(api, [item(output={"uri": out})])
    [name] = [parse_job("tenants/acme/jobs/night-00000")]
    await end(api, await run_of(api, name), failed("NAN_LOSS", retryable=False))
    await api.world.submit("other", output={"uri": out})
    assert counts(await retry(api)) == {"FAILED": 1}


async def test_a_job_tried_again_waits_for_the_run_that_it_failed_in(api: Api):
    """Its place in the pack is empty, but the run still lives: no second one may start beside it."""
    api.world.with_tools(limits=Limits(max_running_runs=2))
    [name] = await batch_of(api, 1)
    run = await run_of(api, name)
    await api.world.report(run, failed("NAN_LOSS", retryable=False))
    await retry(api)
    await api.world.settle()
    assert (await api.world.state(name), await runs_of(api, [name])) == ("QUEUED", [run])
    await api.world.report(run, progress(9))  # a late word of the old run changes nothing
    assert (await api.world.job(name)).progress.step != 9
    api.world.backend.end(run)
    api.world.clock.advance(5)
    await api.world.settle()
    assert (await api.world.state(name), len((await api.world.job(name)).attempts)) == ("STARTING", 2)


async def test_a_plan_stores_nothing_and_tells_the_mistakes_that_create_would(api: Api):
    def stream(*items: pb.BatchItem):
        for part in parts(header(api.world), items):
            yield pb.PlanBatchRequest(header=part.header) if part.HasField("header") else pb.PlanBatchRequest(items=part.items)

    plan = await api.batches.PlanBatch(stream(item(), item()))
    assert sorted(index for pack in plan.packs for index in pack.items) == [0, 1]
    answer = await refusal(api.batches.PlanBatch(stream(item(), item(adapter={"rank": 0}))))
    assert list(answer.fields) == ["items[1].adapter.rank"]
    assert not (await api.batches.ListBatches(pb.ListBatchesRequest(parent="tenants/acme"))).batches


async def test_a_jobs_row_knows_its_batch(api: Api):
    [name] = await batch_of(api, 1)
    async with api.world.tools.db.snapshot() as tx:
        row = await job_rows.by_name(tx, name.tenant, name.job_id)
        assert row is not None
        assert (row.batch, row.batch_uid) == (NIGHT, (await get(api)).uid)
