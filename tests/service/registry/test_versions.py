"""A succeeded job's artifact is a version of the adapter that its spec names: one, from the moment in which the job succeeds."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import Unavailable
from lorafleet.v1 import adapter_service_pb2 as pb
from service.control.lifecycle import Artifact, JobState, finish
from service.core.resource_names import JobName
from service.db import adapters, jobs, runs
from service.db.models import JobRow
from service.db.registry_models import AdapterRow, AdapterVersionRow
from tests.service.registry.made import WEIGHTS, adapter, committed, finished, manifest, read_manifests, version
from tests.service.world import World, progress, succeeded

VERSIONS_OF_JOBS = select(JobRow.job_id, AdapterVersionRow.adapter_id, AdapterVersionRow.number).join(AdapterVersionRow)


async def versions(world: World) -> set[tuple[Any, ...]]:
    async with world.tools.db.snapshot() as tx:
        return {tuple(row) for row in await tx.session.execute(VERSIONS_OF_JOBS)}


async def test_a_job_that_has_succeeded_has_its_version_at_once(world: World):
    name, run = await world.running("one", output={"adapter": "fox"})
    assert (await world.job(name)).adapter_version == ""
    await world.report(run, succeeded())
    job = await world.job(name)
    assert job.adapter_version == "tenants/acme/adapters/fox/versions/1"
    made = await version(world, "fox/versions/1")
    assert (made.state, made.job, made.artifact.manifest_sha256) == (
        pb.ADAPTER_VERSION_STATE_PENDING,
        str(name),
        job.artifact.manifest_sha256,
    )


async def test_an_adapter_is_called_as_the_job_where_the_spec_names_none(world: World):
    name, run = await world.running("one")
    await world.report(run, succeeded())
    assert (await world.job(name)).adapter_version == "tenants/acme/adapters/one/versions/1"


async def test_a_version_tells_what_the_spec_said_and_what_the_manifest_has(world: World):
    dataset = {"uri": f"file://{world.folder}/pictures", "trigger_phrase": "sks fox"}
    base = {"uri": f"file://{world.folder}/base", "family": "sd1"}
    await finished(world, labels={"team": "red"}, adapter={"method": "dora", "rank": 8}, dataset=dataset, base_model=base)
    await read_manifests(world)
    made = await version(world, "fox/versions/1")
    assert (made.state, made.family, made.method, made.rank, made.trigger) == (pb.ADAPTER_VERSION_STATE_READY, "sd1", "dora", 8, "sks fox")
    assert (made.base_digest, dict(made.labels), made.job) == ("b" * 16, {"team": "red"}, "tenants/acme/jobs/fox")
    assert dict(made.quality) == pytest.approx({"held_out_loss": 0.25, "held_out_loss_base": 0.5})
    assert {file.path: file.size_bytes for file in made.files} == {path: len(data) for path, data in WEIGHTS.items()}
    assert made.artifact.size_bytes == sum(map(len, WEIGHTS.values()))
    of_all = await adapter(world, "fox")
    assert (of_all.newest_version, of_all.base_digest, of_all.rank, dict(of_all.labels)) == (1, "b" * 16, 8, {"team": "red"})


async def test_the_family_of_a_spec_that_names_none_is_the_one_that_the_trainer_found(world: World):
    await finished(world, text=manifest(family="sdxl", quality={"clip": 0.5, "odd": "x", "huge": 1e308}))
    await read_manifests(world)
    made = await version(world, "fox/versions/1")
    assert (made.family, made.quality["clip"], set(made.quality)) == ("sdxl", 0.5, {"clip", "held_out_loss", "held_out_loss_base"})


async def test_parents_of_the_manifest_are_told_with_their_weights_beside_what_the_job_began_with(world: World):
    digest, merged = "cd" * 32, "tenants/acme/adapters/wolf/versions/2"
    others = [{"name": merged, "digest": digest, "weight": 0.5}, {"uri": "s3://acme/theirs.safetensors", "weight": 0.25}]
    odd = [{"name": "tenants/blue/adapters/wolf/versions/2"}, {"name": "whatever"}]
    await finished(world, "one", output={"adapter": "fox"})
    start = {"start": {"adapter": "fox/versions/1"}}
    await finished(world, "two", manifest(parents=[*others, *odd]), output={"adapter": "fox"}, adapter=start)
    await read_manifests(world)
    made = await version(world, "fox/versions/2")
    assert list(made.parents) == ["tenants/acme/adapters/fox/versions/1", merged, "s3://acme/theirs.safetensors"]
    assert [each.weight for each in made.made_of if each.HasField("weight")] == [0.5, 0.25]
    assert made.made_of[1].digest == digest


async def test_jobs_of_one_adapter_are_its_versions_in_the_order_of_their_ends(world: World):
    for job_id in ("one", "two"):
        await finished(world, job_id, output={"adapter": "fox"}, adapter={"rank": 4 if job_id == "one" else 8})
    assert await versions(world) == {("one", "fox", 1), ("two", "fox", 2)}
    assert ((await adapter(world, "fox")).newest_version, (await adapter(world, "fox")).rank) == (2, 8)


async def test_an_older_versions_manifest_that_is_read_late_does_not_change_the_adapter(world: World):
    await finished(world, "one", manifest(family="sd1"), output={"adapter": "fox"})
    await finished(world, "two", manifest(family="sdxl"), output={"adapter": "fox"})
    async with world.tools.db.transaction() as tx:
        await tx.session.execute(update(AdapterVersionRow).where(AdapterVersionRow.number == 1).values(due_at=world.clock.now()))
    await read_manifests(world)
    assert ((await version(world, "fox/versions/1")).family, (await adapter(world, "fox")).family) == ("sd1", "sdxl")


async def test_a_repeated_report_and_a_run_that_is_settled_later_make_no_other_version(world: World):
    name, run = await world.running("one")
    event = await committed(world, name, manifest())
    await world.report(run, event)
    await world.report(run, await committed(world, name, manifest()))
    world.backend.end(run)
    world.clock.advance(60)
    await world.settle()
    assert await versions(world) == {("one", "one", 1)}


async def test_a_job_whose_last_report_was_lost_has_its_version_as_its_run_is_settled(world: World):
    name, run = await world.running("one")
    await committed(world, name, manifest())
    world.backend.end(run)
    world.clock.advance(60)
    await world.settle()
    assert await world.state(name) == "SUCCEEDED"
    assert await versions(world) == {("one", "one", 1)}


async def test_a_transaction_that_breaks_off_leaves_neither_the_success_nor_a_version(world: World):
    name, _ = await world.running("one")

    async def killed() -> None:
        async with world.tools.db.transaction() as tx:
            await _succeed(tx, name)
            await adapters.register(tx, list(tx.succeeded.values()))
            await tx.session.flush()
            raise RuntimeError("here")

    with pytest.raises(RuntimeError):
        await killed()
    assert (await world.state(name), await versions(world)) == ("RUNNING", set())


async def test_jobs_that_succeed_beside_each_other_get_a_number_each(world: World):
    names = [await world.submit(f"job-{number}", output={"adapter": "fox"}) for number in range(4)]
    await world.settle()
    for run in dict.fromkeys(world.backend.launches):
        await world.report(run, progress(1))

    async def end(name: JobName) -> None:
        async with world.tools.db.transaction() as tx:
            await _succeed(tx, name)

    await asyncio.gather(*map(end, names))
    assert {number for _, _, number in await versions(world)} == {1, 2, 3, 4}
    assert (await adapter(world, "fox")).newest_version == 4


async def _succeed(tx: Any, name: JobName) -> None:
    found = await jobs.by_name(tx, name.tenant, name.job_id)
    assert found is not None
    [row] = await runs.lock_jobs(tx, [found.uid])
    artifact = Artifact(uri=JobLayout(row.output_uri).adapter, manifest_sha256="ab" * 32)
    jobs.save(tx, row, finish(jobs.value(row), JobState.SUCCEEDED, tx.now, artifact=artifact))


async def test_a_spec_that_is_damaged_keeps_no_job_from_its_version(world: World):
    name, run = await world.running("one")
    async with world.tools.db.transaction() as tx:
        spec = {"output": {"adapter": "No Id"}, "adapter": 3, "base_model": [], "dataset": {"trigger_phrase": 1}}
        await tx.session.execute(update(JobRow).values(spec=spec))
    await world.report(run, succeeded())
    assert (await world.job(name)).adapter_version == "tenants/acme/adapters/one/versions/1"


@pytest.mark.parametrize("text", [manifest(files={}), b"no json"], ids=["another", "none"])
async def test_a_folder_that_does_not_hold_what_was_committed_is_a_damaged_version(world: World, text: bytes):
    name = await finished(world)
    await world.tools.store.put(f"{JobLayout((await world.job(name)).output_uri).adapter}/manifest.json", text)
    await read_manifests(world)
    made = await version(world, "fox/versions/1")
    assert (made.state, made.reason) == (pb.ADAPTER_VERSION_STATE_DAMAGED, "ARTIFACT_CHANGED")
    assert "has another manifest.json" in made.message


async def test_a_manifest_that_is_none_is_a_damaged_version(world: World):
    await finished(world, text=b"[]")
    await read_manifests(world)
    assert (await version(world, "fox/versions/1")).reason == "INVALID_MANIFEST"


async def test_while_the_store_is_away_a_version_stays_pending_and_is_read_when_it_is_back(world: World, monkeypatch: pytest.MonkeyPatch):
    await finished(world)

    async def away(*_: object, **__: object) -> bytes:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("service.store.client.Store.get", away)
        await read_manifests(world)
    assert (await version(world, "fox/versions/1")).state == pb.ADAPTER_VERSION_STATE_PENDING
    world.clock.advance(60)
    await read_manifests(world)
    assert (await version(world, "fox/versions/1")).state == pb.ADAPTER_VERSION_STATE_READY


async def test_jobs_that_succeeded_under_a_server_of_before_get_their_versions(world: World):
    await finished(world, "one")
    await finished(world, "two")
    async with world.tools.db.transaction() as tx:  # as such a server leaves them
        await tx.session.execute(delete(AdapterVersionRow))
        await tx.session.execute(delete(AdapterRow))
        await tx.session.execute(update(JobRow).values(adapter_id=None, adapter_version=None))
    await read_manifests(world)
    assert await versions(world) == {("one", "one", 1), ("two", "two", 1)}
    async with world.tools.db.snapshot() as tx:
        assert await tx.session.scalar(select(func.count()).select_from(AdapterRow)) == 2
    assert (await version(world, "two/versions/1")).state == pb.ADAPTER_VERSION_STATE_READY
