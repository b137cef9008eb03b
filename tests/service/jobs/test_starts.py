"""A job goes on from another of its tenant by name: it keeps that one's artifact and digest, so that nothing else takes its place."""

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from lorafleet import spec_proto
from lorafleet.contract.layout import JobLayout
from lorafleet.errors import FailedPrecondition, InvalidSpec, LorafleetError, NotFound
from lorafleet.v1 import batch_service_pb2 as pb
from service.core.resource_names import JobName
from service.jobs.batch_specs import NewBatch
from service.jobs.batches import Batches
from service.jobs.creation import NewJob
from tests.service.world import World, succeeded

REQUEST = "7f6ab3ac-6f6b-4a38-9b32-6f1ed6b6a2f1"


def going_on(job: str, **start: Any) -> dict[str, Any]:
    return {"adapter": {"start": {"job": job, **start}}}


async def ended(world: World, job_id: str, how: Any) -> None:
    _, run = await world.running(job_id)
    await world.report(run, how)
    await world.settle()


@pytest.mark.parametrize("named", ["first", "jobs/first", "tenants/acme/jobs/first"])
async def test_it_keeps_the_artifact_and_its_digest(world: World, named: str):
    await ended(world, "first", succeeded())
    job = await world.job(await world.submit("second", **going_on(named, resize=True)))
    start = job.spec.adapter.start
    assert start.uri == JobLayout((await world.job(JobName("acme", "first"))).output_uri).adapter
    assert (start.digest, start.job, start.resize) == ("ab" * 32, named, True)
    again = await world.jobs.create(NewJob(tenant="acme", job_id="third", request_id="", spec=spec_proto.from_proto(job.spec)))
    assert again.spec.adapter.start == start, "what was filled in once may be sent again"


@pytest.mark.parametrize(
    ("named", "kind", "said"),
    [
        ("none", NotFound, "adapter.start.job: there is no job tenants/acme/jobs/none of tenants/acme; name one, or the URI"),
        ("tenants/blue/jobs/first", NotFound, "adapter.start.job: there is no job tenants/blue/jobs/first of tenants/acme"),
        ("waits", FailedPrecondition, "adapter.start.job: tenants/acme/jobs/waits is QUEUED, and has no artifact"),
        ("gone", FailedPrecondition, "adapter.start.job: tenants/acme/jobs/gone is CANCELLED, and has no artifact"),
    ],
)
async def test_what_it_cannot_go_on_from_is_refused_by_name(world: World, named: str, kind: type[LorafleetError], said: str):
    await ended(world, "first", succeeded())
    await world.jobs.cancel(await world.submit("gone"))
    await world.submit("waits")
    new = NewJob(tenant="acme", job_id="second", request_id="", spec=world.spec(**going_on(named)))
    for validate_only in (True, False):
        with pytest.raises(kind) as refused:
            await world.jobs.create(new, validate_only=validate_only)
        assert refused.value.message.startswith(said)


async def test_another_tenants_job_of_that_id_is_nobodys(world: World):
    await ended(world, "first", succeeded())
    with pytest.raises(NotFound, match=r"no job tenants/blue/jobs/first of tenants/blue"):
        await world.jobs.create(NewJob(tenant="blue", job_id="second", request_id="", spec=world.spec(**going_on("first"))))


async def test_a_repeated_request_finds_its_job(world: World):
    await ended(world, "first", succeeded())
    new = NewJob(tenant="acme", job_id="", request_id=REQUEST, spec=world.spec(**going_on("first")))
    assert (await world.jobs.create(new)).name == (await world.jobs.create(new)).name
    assert (await world.jobs.create(new, validate_only=True)).spec.adapter.start.digest == "ab" * 32


async def test_a_batch_names_every_item_that_has_nothing_to_go_on_from(world: World):
    await ended(world, "first", succeeded())
    batches = Batches(world.tools.db, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)
    good = await batches.create(_batch(world, "good", ["first", "first"]))
    assert (await world.job(JobName("acme", "good-00001"))).spec.adapter.start.digest == "ab" * 32
    assert (await batches.create(_batch(world, "good", ["first", "first"]))).name == good.name
    with pytest.raises(InvalidSpec) as refused:
        await batches.create(_batch(world, "bad", ["none", "first", "other"], request_id=""))
    assert [each.field for each in refused.value.violations] == ["items[0].adapter.start.job", "items[2].adapter.start.job"]
    assert refused.value.violations[0].message.startswith("there is no job tenants/acme/jobs/none of tenants/acme")


def _batch(world: World, batch_id: str, starts: list[str], request_id: str = REQUEST) -> NewBatch:
    defaults = {"base_model": {"uri": f"file://{world.folder}/base"}, "dataset": {"uri": f"file://{world.folder}/pictures"}}
    items = [ParseDict({"spec": going_on(each)}, pb.BatchItem()) for each in starts]
    return NewBatch(tenant="acme", batch_id=batch_id, request_id=request_id, defaults=defaults, items=items)
