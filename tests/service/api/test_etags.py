"""Etags: a change that was decided on another state is not made (AIP-154)."""

import pytest

from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from tests.service.api.batch_requests import create, item
from tests.service.api.refusals import refusal
from tests.service.api.served import Api
from tests.service.world import failed


async def cancel(api: Api, name: str, etag: str) -> pb.TrainingJob:
    return await api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name, etag=etag))


async def test_a_cancel_with_the_jobs_etag_is_done_and_its_repeat_is_harmless(api: Api):
    job = await api.jobs.CreateTrainingJob(api.request())
    for _ in range(2):  # the answer of the first may have been lost
        assert (await cancel(api, job.name, job.etag)).state == pb.JOB_STATE_CANCELLED


async def test_a_cancel_with_an_older_etag_changes_nothing(api: Api):
    old = await api.jobs.CreateTrainingJob(api.request())
    await api.world.settle()
    answer = await refusal(cancel(api, old.name, old.etag))
    assert (answer.code, answer.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert "read it again" in answer.message
    job = await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=old.name))
    assert job.state == pb.JOB_STATE_STARTING
    assert (await cancel(api, job.name, job.etag)).state in {pb.JOB_STATE_STOPPING, pb.JOB_STATE_CANCELLED}


async def test_a_batchs_etag_changes_with_its_counts(api: Api):
    first = await create(api, [item(), item()])
    again = await api.batches.GetBatch(batch_pb.GetBatchRequest(name=first.name))
    assert first.etag == again.etag != ""
    await cancel(api, "tenants/acme/jobs/night-00000", "")
    [listed] = (await api.batches.ListBatches(batch_pb.ListBatchesRequest(parent="tenants/acme"))).batches
    assert listed.etag != first.etag


async def test_a_batch_that_has_changed_is_not_cancelled(api: Api):
    old = await create(api, [item(), item()])
    await cancel(api, "tenants/acme/jobs/night-00000", "")
    answer = await refusal(api.batches.CancelBatch(batch_pb.CancelBatchRequest(name=old.name, etag=old.etag)))
    assert (answer.code, answer.reason) == ("ABORTED", "ETAG_MISMATCH")
    batch = await api.batches.GetBatch(batch_pb.GetBatchRequest(name=old.name))
    assert {count.state: count.count for count in batch.counts} == {pb.JOB_STATE_QUEUED: 1, pb.JOB_STATE_CANCELLED: 1}
    cancelled = await api.batches.CancelBatch(batch_pb.CancelBatchRequest(name=old.name, etag=batch.etag))
    assert {count.state: count.count for count in cancelled.counts} == {pb.JOB_STATE_CANCELLED: 2}


async def test_a_batch_that_has_changed_is_not_retried(api: Api):
    old = await create(api, [item()])
    await api.world.settle()
    [run] = api.world.backend.launches
    await api.world.report(run, failed("BAD_DATA", retryable=False))
    retry = api.batches.RetryFailed(batch_pb.RetryFailedRequest(name=old.name, etag=old.etag))
    answer = await refusal(retry)
    assert (answer.code, answer.reason) == ("ABORTED", "ETAG_MISMATCH")
    batch = await api.batches.GetBatch(batch_pb.GetBatchRequest(name=old.name))
    assert [count.state for count in batch.counts] == [pb.JOB_STATE_FAILED]
    retried = await api.batches.RetryFailed(batch_pb.RetryFailedRequest(name=old.name, etag=batch.etag))
    assert [count.state for count in retried.counts] == [pb.JOB_STATE_QUEUED]


@pytest.mark.parametrize("etag", ["x" * 100_000, "'; DROP TABLE jobs; --", "\x00", "🦊"])
async def test_an_etag_of_nobody_is_a_mismatch(api: Api, etag: str):
    job = await api.jobs.CreateTrainingJob(api.request())
    assert (await refusal(cancel(api, job.name, etag))).reason == "ETAG_MISMATCH"
