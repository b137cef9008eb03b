"""What one tenant has, no other sees: pages, gets and cancels, of jobs that go by the same id."""

import asyncio

import grpc
import grpc.aio
import pytest

from lorafleet.v1 import training_service_pb2 as pb
from tests.service.api.served import Api

PARENTS = ("tenants/acme", "tenants/globex")


async def test_a_page_shows_its_own_tenants_jobs_alone(api: Api):
    for parent in PARENTS:
        for job in ("one", "two"):
            await api.jobs.CreateTrainingJob(api.request(parent=parent, training_job_id=job))
    for parent in PARENTS:
        page = await api.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent=parent))
        assert {job.name for job in page.training_jobs} == {f"{parent}/jobs/one", f"{parent}/jobs/two"}


async def test_an_id_is_its_tenants_own(api: Api):
    for parent in PARENTS:
        await api.jobs.CreateTrainingJob(api.request(parent=parent, training_job_id="fox"))
    await api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="tenants/globex/jobs/fox"))
    states = [(await api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=f"{parent}/jobs/fox"))).state for parent in PARENTS]
    assert states == [pb.JOB_STATE_QUEUED, pb.JOB_STATE_CANCELLED]


async def test_another_tenants_job_is_not_found(api: Api):
    await api.jobs.CreateTrainingJob(api.request(parent="tenants/acme", training_job_id="fox"))
    for call in (
        api.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/globex/jobs/fox")),
        api.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="tenants/globex/jobs/fox")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_shows_its_own_tenants_changes_alone(api: Api):
    watch = api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/globex"))
    async with asyncio.timeout(20):
        await watch.read()  # nothing there yet: a heartbeat
        for parent in PARENTS:
            await api.jobs.CreateTrainingJob(api.request(parent=parent, training_job_id="fox"))
        while not (event := await watch.read()).HasField("training_job"):
            pass
    assert event.training_job.name == "tenants/globex/jobs/fox"
    watch.cancel()


async def test_a_watch_that_goes_on_from_a_token_is_shown_its_own_tenants_changes_alone(api: Api):
    """What it missed it reads from the log of all tenants, where the feed of those who watch has nothing for it."""
    watch = api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/globex"))
    token = (await watch.read()).resume_token
    watch.cancel()
    for job in ("one", "two"):
        for parent in PARENTS:
            await api.jobs.CreateTrainingJob(api.request(parent=parent, training_job_id=job))
    again = api.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/globex", resume_token=token))
    names: list[str] = []
    async with asyncio.timeout(20):
        while (event := await again.read()).HasField("training_job"):
            names.append(event.training_job.name)
    assert names == ["tenants/globex/jobs/one", "tenants/globex/jobs/two"]
    again.cancel()
