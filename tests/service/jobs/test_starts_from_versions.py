"""A job goes on from a version of its tenant's registry: the one that an alias stands for as the job is accepted, for good."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from lorafleet import spec_proto
from lorafleet.errors import FailedPrecondition, InvalidSpec, LorafleetError, NotFound
from lorafleet.v1 import batch_service_pb2 as pb
from service.access.identity import Identity, Role
from service.core.resource_names import AdapterName, AliasName, JobName, VersionName
from service.jobs import starts
from service.jobs.batch_specs import NewBatch
from service.jobs.batches import Batches
from service.jobs.creation import NewJob
from service.registry import aliases, deletion
from service.registry.aliases import AliasMove
from tests.service.registry.made import finished, make_version, read_manifests, version
from tests.service.world import World

FOX = AdapterName("acme", "fox")
ANN = Identity(principal="user:ann", role=Role.ADMIN)
REQUEST = "7f6ab3ac-6f6b-4a38-9b32-6f1ed6b6a2f1"


def going_on(adapter: str, **start: Any) -> dict[str, Any]:
    return {"adapter": {"start": {"adapter": adapter, **start}}}


def new(world: World, named: str, tenant: str = "acme", *, start: dict[str, Any] | None = None, **more: Any) -> NewJob:
    sections = going_on(named, **(start or {}))
    spec = world.spec(**{**more, "adapter": {**more.get("adapter", {}), **sections["adapter"]}})
    return NewJob(tenant=tenant, job_id="second", request_id="", spec=spec)


async def promoted(world: World, number: int, alias: str = "production") -> None:
    await aliases.set_alias(world.tools.db, AliasMove(name=AliasName(FOX, alias), number=number), ANN)


@pytest.mark.parametrize(
    "named",
    ["fox@production", "adapters/fox@production", "tenants/acme/adapters/fox@production", "fox/versions/1", "adapters/fox/versions/1"],
)
async def test_it_keeps_the_version_with_its_artifact_and_digest(world: World, named: str):
    await make_version(world.tools.db, "fox")
    await make_version(world.tools.db, "fox")
    await promoted(world, 1)
    job = await world.jobs.create(new(world, named))
    await promoted(world, 2)
    start = (await world.job(JobName("acme", "second"))).spec.adapter.start
    assert start == job.spec.adapter.start
    first = await version(world, "fox/versions/1")
    assert (start.adapter, start.uri, start.digest) == (first.name, first.artifact.uri, first.artifact.manifest_sha256)
    again = await world.jobs.create(NewJob(tenant="acme", job_id="third", request_id="", spec=spec_proto.from_proto(job.spec)))
    assert again.spec.adapter.start == start, "what was filled in once may be sent again"


@pytest.mark.parametrize(
    ("named", "kind", "said"),
    [
        ("none@production", NotFound, "adapter.start.adapter: there is no tenants/acme/adapters/none@production of tenants/acme; "),
        ("fox@candidate", NotFound, "adapter.start.adapter: there is no tenants/acme/adapters/fox@candidate of tenants/acme; "),
        ("fox/versions/9", NotFound, "adapter.start.adapter: there is no tenants/acme/adapters/fox/versions/9 of tenants/acme; "),
        ("tenants/blue/adapters/wolf/versions/1", NotFound, "adapter.start.adapter: there is no tenants/blue/adapters/wolf/versions/1 of "),
        ("fox/versions/1", FailedPrecondition, "adapter.start.adapter: tenants/acme/adapters/fox/versions/1 is deleted; undelete it first"),
    ],
)
async def test_what_it_cannot_go_on_from_is_refused_by_name(world: World, named: str, kind: type[LorafleetError], said: str):
    await make_version(world.tools.db, "wolf", "blue")
    for _ in range(2):
        await make_version(world.tools.db, "fox")
    await deletion.delete_version(world.tools.db, VersionName(FOX, 1), ANN)
    for validate_only in (True, False):
        with pytest.raises(kind) as refused:
            await world.jobs.create(new(world, named), validate_only=validate_only)
        assert refused.value.message.startswith(said)


async def test_an_adapter_of_another_tenant_of_that_name_is_nobodys(world: World):
    await make_version(world.tools.db, "fox")
    with pytest.raises(NotFound, match=r"no tenants/blue/adapters/fox/versions/1 of tenants/blue"):
        await world.jobs.create(new(world, "fox/versions/1", tenant="blue"))


@pytest.mark.parametrize(
    ("facts", "adapter", "fields"),
    [
        ({"rank": 8}, {"rank": 16}, ["adapter.rank"]),
        ({"method": "lokr"}, {"rank": 16}, ["adapter.method"]),
        ({"family": "sdxl", "rank": 4}, {"rank": 16}, ["base_model.family", "adapter.rank"]),
        ({"method": "rslora"}, {"rank": 16}, []),
        ({"rank": 8}, {"rank": 16, "overrides": [{"part": "text_encoder", "rank": 8}], "text_encoder": True}, []),
        ({"rank": 8, "method": "lokr"}, {"rank": 16, "start": {"resize": True}}, []),
    ],
)
async def test_what_does_not_fit_the_spec_is_told_before_anything_runs(
    world: World, facts: dict[str, Any], adapter: dict[str, Any], fields: list[str]
):
    await make_version(world.tools.db, "fox", **{"family": "sd1", **facts})
    base = {"uri": f"file://{world.folder}/base", "family": "sd1"}
    asked = new(world, "fox/versions/1", adapter=adapter, base_model=base, start=adapter.get("start"))
    if not fields:
        assert (await world.jobs.create(asked)).spec.adapter.start.digest
        return
    with pytest.raises(InvalidSpec) as refused:
        await world.jobs.create(asked)
    assert [each.field for each in refused.value.violations] == fields


async def test_a_repeated_request_finds_its_job_wherever_the_alias_has_moved(world: World):
    for _ in range(2):
        await make_version(world.tools.db, "fox")
    await promoted(world, 1)
    asked = replace(new(world, "fox@production"), request_id=REQUEST)
    first = await world.jobs.create(asked)
    await promoted(world, 2)
    assert await world.jobs.create(asked) == first


async def test_an_alias_that_moves_while_the_job_is_checked_is_looked_up_again(world: World, monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        await make_version(world.tools.db, "fox")
    await promoted(world, 1)
    filled_in, moves = starts.filled_in, [2]

    async def then_moved(*args: Any) -> Any:
        found = await filled_in(*args)
        if moves:
            await promoted(world, moves.pop())
        return found

    monkeypatch.setattr(starts, "filled_in", then_moved)
    job = await world.jobs.create(new(world, "fox@production"))
    assert job.spec.adapter.start.adapter == "tenants/acme/adapters/fox/versions/2"


async def test_a_batch_names_every_item_that_does_not_fit_where_it_is_to_be_mended(world: World):
    await make_version(world.tools.db, "fox", rank=8)
    await promoted(world, 1)
    batches = Batches(world.tools.db, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)
    good = [{"adapter": {"rank": 8, "start": {"adapter": "fox@production"}}}] * 2
    await batches.create(_batch(world, "good", good))
    started = (await world.job(JobName("acme", "good-00001"))).spec.adapter.start
    assert started.adapter == "tenants/acme/adapters/fox/versions/1"
    bad = [{"adapter": {"rank": 4, "start": {"adapter": "fox@production"}}}, {"adapter": {"start": {"adapter": "wolf@production"}}}]
    with pytest.raises(InvalidSpec) as refused:
        await batches.create(_batch(world, "bad", bad))
    assert [each.field for each in refused.value.violations] == ["items[0].adapter.rank", "items[1].adapter.start.adapter"]


async def test_a_batch_is_not_written_with_what_an_alias_stood_for_before(world: World, monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        await make_version(world.tools.db, "fox")
    await promoted(world, 1)
    batches = Batches(world.tools.db, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)
    filled_in = starts.all_filled_in

    async def then_moved(*args: Any) -> Any:
        found = await filled_in(*args)
        await promoted(world, 2)
        return found

    monkeypatch.setattr(starts, "all_filled_in", then_moved)
    item = [{"adapter": {"start": {"adapter": "fox@production"}}}]
    with pytest.raises(starts.StartMoved):
        await batches.create(_batch(world, "one", item))
    assert (await batches.create(_batch(world, "one", item))).name == "tenants/acme/batches/one"


async def test_what_a_job_went_on_from_is_its_versions_parent(world: World):
    await finished(world, "fox")
    await finished(world, "wolf", **going_on("fox/versions/1"))
    await finished(world, "bear", adapter={"start": {"job": "wolf"}})
    await finished(world, "lynx", adapter={"start": {"uri": f"file://{world.folder}/theirs.safetensors"}})
    await read_manifests(world)
    made = {name: await version(world, f"{name}/versions/1") for name in ("fox", "wolf", "bear", "lynx")}
    assert list(made["fox"].parents) == []
    assert list(made["wolf"].parents) == ["tenants/acme/adapters/fox/versions/1"]
    assert made["wolf"].made_of[0].digest == made["fox"].artifact.manifest_sha256
    assert list(made["bear"].parents) == ["tenants/acme/adapters/wolf/versions/1"]
    assert list(made["lynx"].parents) == [f"file://{world.folder}/theirs.safetensors"]


def _batch(world: World, batch_id: str, items: list[dict[str, Any]]) -> NewBatch:
    defaults = {"base_model": {"uri": f"file://{world.folder}/base"}, "dataset": {"uri": f"file://{world.folder}/pictures"}}
    parsed = [ParseDict({"spec": each}, pb.BatchItem()) for each in items]
    return NewBatch(tenant="acme", batch_id=batch_id, request_id="", defaults=defaults, items=parsed)
