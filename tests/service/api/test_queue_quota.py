"""max_queued_jobs: creates, batches and retries are held to it, whole or not at all, whoever else asks at the same moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from lorafleet.errors import QuotaExceeded
from lorafleet.v1 import batch_service_pb2 as pb
from service.core.clock import FakeClock
from service.core.resource_names import JobName, parse_job
from service.core.wakeups import Bell
from service.db.database import Database
from service.db.engines import engine_of
from service.db.models import TenantRow
from service.db.retrying import again
from service.jobs import batches
from service.jobs.creation import NewJob
from service.jobs.jobs import Jobs
from service.jobs.messages import job_event
from tests.service.access.members import make_tenant
from tests.service.api.batch_requests import create, item
from tests.service.api.served import Api
from tests.service.world import World, failed

NIGHT = "tenants/acme/batches/night"


async def may_wait(world: World, most: int) -> None:
    async with world.tools.db.transaction() as tx:
        row = await tx.session.get(TenantRow, "acme")
        assert row is not None
        row.max_queued_jobs = most


async def quota_failure(call) -> list[tuple[str, str]]:
    """The violations of the call's QuotaFailure."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status, quota = status_pb2.Status(), error_details_pb2.QuotaFailure()
    trailers: Any = raised.value.trailing_metadata()
    status.ParseFromString(dict(trailers)["grpc-status-details-bin"])
    assert any(detail.Unpack(quota) for detail in status.details)
    return [(violation.subject, violation.description) for violation in quota.violations]


async def test_a_batch_over_the_quota_is_refused_whole_and_told_by_how_much(api: Api):
    await make_tenant(api.world.tools.db, "acme", max_queued_jobs=3)
    await api.world.submit("one")
    told = "1 jobs wait and 3 would be added; at most 3 may wait (max_queued_jobs)"
    assert await quota_failure(create(api, [item(), item(), item()])) == [("tenants/acme", told)]
    assert not (await api.batches.ListBatches(pb.ListBatchesRequest(parent="tenants/acme"))).batches
    assert (await create(api, [item(), item()])).num_jobs == 2


async def with_two_failed_jobs(api: Api) -> None:
    await make_tenant(api.world.tools.db, "acme")
    await create(api, [item(), item()])
    await api.world.settle()
    (run,) = api.world.backend.launches
    for index in range(2):
        event = failed("NAN_LOSS", retryable=False)
        event.job = f"tenants/acme/jobs/night-{index:05d}"
        await api.world.report(run, event)


async def test_retries_are_held_to_the_quota_whole(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "SLICE", 1)  # jobs of one transaction
    await with_two_failed_jobs(api)
    retry = partial(api.batches.RetryFailed, pb.RetryFailedRequest(name=NIGHT))
    await may_wait(api.world, 1)
    told = "0 jobs wait and 2 would be added; at most 1 may wait (max_queued_jobs)"
    assert await quota_failure(retry()) == [("tenants/acme", told)]
    batch = await api.batches.GetBatch(pb.GetBatchRequest(name=NIGHT))
    assert [count.count for count in batch.counts] == [2]
    assert {await api.world.state(name) for name in _names()} == {"FAILED"}
    await may_wait(api.world, 2)
    assert [count.count for count in (await retry()).counts] == [2]
    assert {await api.world.state(name) for name in _names()} == {"QUEUED"}
    await may_wait(api.world, 0)
    await retry()  # there is nothing to try again: no quota stands against that


async def test_a_place_that_another_takes_in_the_middle_of_a_retry_is_not_given_twice(api: Api, monkeypatch: pytest.MonkeyPatch):
    await with_two_failed_jobs(api)
    await may_wait(api.world, 2)
    retry = batches.Batches._retry

    async def after_another(self: batches.Batches, tenant: str, uids: Sequence[str]) -> None:
        await api.world.submit()
        await retry(self, tenant, uids)

    monkeypatch.setattr(batches.Batches, "_retry", after_another)
    told = "1 jobs wait and 2 would be added; at most 2 may wait (max_queued_jobs)"
    assert await quota_failure(api.batches.RetryFailed(pb.RetryFailedRequest(name=NIGHT))) == [("tenants/acme", told)]
    assert {await api.world.state(name) for name in _names()} == {"FAILED"}


def _names() -> list[JobName]:
    return [parse_job(f"tenants/acme/jobs/night-{index:05d}") for index in range(2)]


@pytest.fixture
async def other(database_url: str, clock: FakeClock) -> AsyncIterator[Database]:
    """The same database as another replica has it open."""
    database = Database(engine_of(database_url), clock, Bell(), job_event)
    yield database
    await database.close()


async def test_of_two_creates_at_the_last_place_of_the_queue_exactly_one_is_refused(world: World, other: Database):
    await make_tenant(world.tools.db, "acme", max_queued_jobs=1)
    there = Jobs(other, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)
    for place in range(5):
        await may_wait(world, place + 1)
        new = [NewJob(tenant="acme", job_id=f"job-{place}-{side}", request_id="", spec=world.spec()) for side in (0, 1)]
        ends = await asyncio.gather(again(partial(world.jobs.create, new[0])), again(partial(there.create, new[1])), return_exceptions=True)
        refused = [end for end in ends if isinstance(end, BaseException)]
        assert [type(end) for end in refused] == [QuotaExceeded], ends
