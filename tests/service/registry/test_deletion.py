"""What is deleted can be had back for 30 days and is gone for good then, with the files that the service had placed, and no others."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select

from lorafleet.contract.layout import MANIFEST
from lorafleet.errors import Aborted, FailedPrecondition, InvalidInput, NotFound, PermissionDenied, QuotaExceeded, Unavailable
from lorafleet.v1 import access_service_pb2 as access_pb
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.authorization import Access
from service.access.identity import Identity, Role
from service.api.lists.adapters import list_adapters, list_versions
from service.api.signing import sign_artifact, sign_version
from service.control.retention import Rule
from service.core.resource_names import AdapterName, parse_alias, parse_number
from service.db.models import AuditRow
from service.reconcile.purge import purge_once
from service.reconcile.retention import PRINCIPAL, retain_once
from service.registry import deletion
from service.registry.aliases import AliasMove, delete_alias, set_alias
from service.tenancy.tenants import Tenants
from service.untrusted.parsing import Parser
from tests.service.access.members import make_grant, make_tenant
from tests.service.registry.made import WEIGHTS, adapter, finished, make_version, read_manifests, version
from tests.service.world import World

BOSS = Identity(principal="olga", tenant="acme", role=Role.OPERATOR)
BOB = Identity(principal="bob", tenant="acme", role=Role.SUBMITTER)
FOX = AdapterName("acme", "fox")
DAY_S = 24 * 3600


def number(version_number: int):
    return parse_number(f"{FOX}/versions/{version_number}")


async def point(world: World, alias: str, to: int) -> None:
    await set_alias(world.tools.db, AliasMove(name=parse_alias(f"{FOX}@{alias}"), number=to), BOSS)


async def ids(world: World, *, show_deleted: bool = False) -> list[str]:
    request = pb.ListAdaptersRequest(parent="tenants/acme", order_by="name", show_deleted=show_deleted)
    return [one.name.rpartition("/")[2] for one in (await list_adapters(world.tools.db, request)).adapters]


async def numbers(world: World, *, show_deleted: bool = False) -> list[int]:
    request = pb.ListAdapterVersionsRequest(parent=str(FOX), show_deleted=show_deleted)
    return [one.number for one in (await list_versions(world.tools.db, request)).adapter_versions]


async def run_loops(world: World) -> None:
    while await retain_once(world.tools) or await purge_once(world.tools):
        pass


def files(world: World, job: str = "fox") -> set[str]:
    folder = Path(f"{world.folder}/artifacts/tenants/acme/jobs/{job}/adapter")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
async def fox(world: World) -> World:
    """An adapter of three versions, the last the newest, of olga's, and another adapter."""
    for rank in (4, 8, 16):
        await make_version(world.tools.db, "fox", rank=rank, age_s=10, created_by="olga")
    await make_version(world.tools.db, "hare", created_by="olga")
    return world


async def test_a_deleted_version_is_hidden_and_can_be_had_back(fox: World):
    gone = await deletion.delete_version(fox.tools.db, number(3), BOSS)
    assert gone.purge_time.seconds - gone.delete_time.seconds == 30 * DAY_S
    assert (await numbers(fox), await numbers(fox, show_deleted=True)) == ([2, 1], [3, 2, 1])
    assert ((await adapter(fox, "fox")).newest_version, (await adapter(fox, "fox")).rank) == (2, 8), "facts of what is there"
    back = await deletion.undelete_version(fox.tools.db, number(3), BOSS)
    assert not back.HasField("delete_time")
    assert ((await adapter(fox, "fox")).newest_version, await numbers(fox)) == (3, [3, 2, 1])


async def test_a_deleted_adapter_is_hidden_and_can_be_had_back(fox: World):
    before = (await adapter(fox, "fox")).etag
    with pytest.raises(Aborted):
        await deletion.delete_adapter(fox.tools.db, FOX, "another", BOSS)
    for _ in range(2):
        assert (await deletion.delete_adapter(fox.tools.db, FOX, before, BOSS)).HasField("purge_time")
    assert (await ids(fox), await ids(fox, show_deleted=True)) == (["hare"], ["fox", "hare"])
    await deletion.undelete_adapter(fox.tools.db, FOX, BOSS)
    assert await ids(fox) == ["fox", "hare"]


async def test_what_is_in_production_is_not_deleted(fox: World):
    await point(fox, "production", 2)
    for call in (deletion.delete_version(fox.tools.db, number(2), BOSS), deletion.delete_adapter(fox.tools.db, FOX, "", BOSS)):
        with pytest.raises(FailedPrecondition, match="versions/2 is what production stands for") as refused:
            await call
        assert refused.value.reason == "IN_PRODUCTION"
    await point(fox, "candidate", 3)
    with pytest.raises(FailedPrecondition) as refused:
        await deletion.delete_version(fox.tools.db, number(3), BOSS)
    assert refused.value.reason == "HAS_ALIAS"
    await delete_alias(fox.tools.db, parse_alias(f"{FOX}@production"), "", BOSS)
    await deletion.delete_adapter(fox.tools.db, FOX, "", BOSS)


async def test_a_promotion_and_a_deletion_at_once_do_not_both_go_through(fox: World):
    answers = await asyncio.gather(
        point(fox, "production", 1), deletion.delete_version(fox.tools.db, number(1), BOSS), return_exceptions=True
    )
    assert sum(isinstance(answer, FailedPrecondition) for answer in answers) == 1


async def test_what_is_deleted_gets_no_alias(fox: World):
    await deletion.delete_version(fox.tools.db, number(1), BOSS)
    with pytest.raises(FailedPrecondition) as refused:
        await point(fox, "candidate", 1)
    assert refused.value.reason == "ADAPTER_VERSION_DELETED"
    await deletion.delete_adapter(fox.tools.db, FOX, "", BOSS)
    with pytest.raises(FailedPrecondition) as refused:
        await point(fox, "candidate", 2)
    assert refused.value.reason == "ADAPTER_DELETED"


async def test_others_versions_are_an_operators_to_delete(fox: World):
    for call in (
        deletion.delete_version(fox.tools.db, number(1), BOB),
        deletion.delete_adapter(fox.tools.db, FOX, "", BOB),
        deletion.undelete_version(fox.tools.db, number(1), BOB),
        deletion.undelete_adapter(fox.tools.db, FOX, BOB),
    ):
        with pytest.raises(PermissionDenied):
            await call
    await make_version(fox.tools.db, "bobs", created_by="bob")
    await deletion.delete_adapter(fox.tools.db, AdapterName("acme", "bobs"), "", BOB)


async def test_after_30_days_a_version_is_purged_with_the_files_that_the_service_had_placed(world: World):
    name = await finished(world)
    await read_manifests(world)
    (Path(f"{world.folder}/artifacts/tenants/acme/jobs/fox/adapter") / "mine.txt").write_text("of somebody else's")
    await deletion.delete_version(world.tools.db, number(1), BOSS)
    world.clock.advance(30 * DAY_S - 1)
    await run_loops(world)
    assert files(world) == {*WEIGHTS, MANIFEST, "mine.txt"}
    world.clock.advance(2)
    await run_loops(world)
    assert files(world) == {"mine.txt"}
    gone = await version(world, "fox/versions/1")
    assert (gone.state, list(gone.files), gone.artifact.size_bytes) == (pb.ADAPTER_VERSION_STATE_PURGED, [], 0)
    with pytest.raises(FailedPrecondition, match="is purged"):
        await deletion.undelete_version(world.tools.db, number(1), BOSS)
    for call in (
        sign_artifact(world.tools.db, world.tools.store, name, 0, Parser()),
        sign_version(world.tools.db, world.tools.store, number(1), 0, Parser()),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await call
        assert refused.value.reason.endswith("PURGED")


async def test_files_in_a_folder_that_the_user_named_stay(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}", may_write=True)
    await finished(world, output={"uri": f"file://{world.folder}/mine"})
    await read_manifests(world)
    await deletion.delete_version(world.tools.db, number(1), BOSS)
    world.clock.advance(31 * DAY_S)
    await run_loops(world)
    assert (await version(world, "fox/versions/1")).state == pb.ADAPTER_VERSION_STATE_PURGED
    assert {path.name for path in (world.folder / "mine" / "adapter").iterdir()} == {*WEIGHTS, MANIFEST}


async def test_while_the_store_is_away_nothing_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch):
    await finished(world)
    await read_manifests(world)
    await deletion.delete_version(world.tools.db, number(1), BOSS)
    world.clock.advance(31 * DAY_S)

    async def away(*_: object) -> None:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("service.store.client.Store.delete", away)
        await run_loops(world)
    assert files(world) == {*WEIGHTS, MANIFEST}
    with pytest.raises(FailedPrecondition, match="is purged"):
        await deletion.undelete_version(world.tools.db, number(1), BOSS)
    world.clock.advance(60)
    await run_loops(world)
    assert files(world) == set()


async def test_a_purged_adapter_is_not_there_and_its_name_goes_on_counting(world: World):
    await finished(world, "one", output={"adapter": "fox"})
    await read_manifests(world)
    await point(world, "candidate", 1)
    await deletion.delete_adapter(world.tools.db, FOX, "", BOSS)
    world.clock.advance(31 * DAY_S)
    await run_loops(world)
    assert (await ids(world, show_deleted=True), files(world, "one")) == ([], set())
    with pytest.raises(NotFound):
        await deletion.undelete_adapter(world.tools.db, FOX, BOSS)
    await finished(world, "two", output={"adapter": "fox"})
    again = await adapter(world, "fox")
    assert (again.newest_version, dict(again.aliases), await numbers(world, show_deleted=True)) == (2, {}, [2, 1])


async def test_a_new_version_brings_a_deleted_adapter_back(world: World):
    await finished(world, "one", output={"adapter": "fox"})
    await deletion.delete_adapter(world.tools.db, FOX, "", BOSS)
    await finished(world, "two", output={"adapter": "fox"})
    world.clock.advance(31 * DAY_S)
    await run_loops(world)
    assert (await ids(world), await numbers(world)) == (["fox"], [2, 1])


async def test_a_rule_deletes_old_versions_as_new_ones_come_and_time_goes_by(fox: World):
    await deletion.set_retention(fox.tools.db, FOX, Rule(keep_newest=1, keep_days=10), "")
    await point(fox, "candidate", 1)
    await run_loops(fox)
    assert await numbers(fox) == [3, 2, 1], "all are young"
    fox.clock.advance(11 * DAY_S)
    await run_loops(fox)
    assert await numbers(fox) == [3, 1]
    await delete_alias(fox.tools.db, parse_alias(f"{FOX}@candidate"), "", BOSS)
    await run_loops(fox)
    assert await numbers(fox) == [3]
    async with fox.tools.db.snapshot() as tx:
        told = {row.resource for row in await tx.session.scalars(select(AuditRow).where(AuditRow.principal == PRINCIPAL))}
    assert told == {f"{FOX}/versions/1", f"{FOX}/versions/2"}


async def test_a_job_that_succeeds_makes_the_rule_of_its_adapter_be_asked(world: World):
    await finished(world, "one", output={"adapter": "fox"})
    await deletion.set_retention(world.tools.db, FOX, Rule(keep_newest=1), "")
    await run_loops(world)
    await finished(world, "two", output={"adapter": "fox"})
    await run_loops(world)
    assert await numbers(world) == [2]


async def test_an_adapter_without_a_rule_of_its_own_has_its_tenants(world: World):
    for name in ("fox", "wolf"):
        for _ in range(3):
            await make_version(world.tools.db, name)
    await make_version(world.tools.db, "fox", "blue")
    await make_version(world.tools.db, "fox", "blue")
    await deletion.set_retention(world.tools.db, AdapterName("acme", "wolf"), Rule(keep_newest=100), "")
    await run_loops(world)
    assert await numbers(world) == [3, 2, 1]
    tenants = Tenants(world.tools.db, Access(world.tools.db))
    await tenants.create("acme", access_pb.Tenant(adapter_keep_newest=2))
    await run_loops(world)
    assert await numbers(world) == [3, 2]
    await tenants.update("acme", access_pb.Tenant(adapter_keep_newest=0, adapter_keep_days=1), ["adapter_keep_newest", "adapter_keep_days"])
    await run_loops(world)
    assert await numbers(world) == [3, 2], "they are young"
    world.clock.advance(2 * DAY_S)
    await run_loops(world)
    assert await numbers(world) == [3]
    await deletion.set_retention(world.tools.db, AdapterName("acme", "wolf"), Rule(keep_newest=100), "")  # and so it is asked again
    await run_loops(world)
    kept = await list_versions(world.tools.db, pb.ListAdapterVersionsRequest(parent="tenants/acme/adapters/wolf"))
    others = await list_versions(world.tools.db, pb.ListAdapterVersionsRequest(parent="tenants/blue/adapters/fox"))
    assert (len(kept.adapter_versions), len(others.adapter_versions)) == (3, 2), (
        "a rule of its own goes before, another tenant's is its own"
    )


async def test_a_tenant_is_told_what_it_stores(world: World):
    await make_tenant(world.tools.db, "acme", max_storage_bytes=10)
    await make_grant(world.tools.db, "acme", f"file://{world.folder}", may_write=True)
    await finished(world)
    await read_manifests(world)
    await make_version(world.tools.db, "fox", "blue", size_bytes=7)
    tenants = Tenants(world.tools.db, Access(world.tools.db))
    assert (await tenants.get("acme")).stored_bytes == sum(map(len, WEIGHTS.values()))
    with pytest.raises(InvalidInput, match=r"tenant\.adapter_keep_days: 40000 is not 0 to 36,500"):
        await tenants.update("acme", access_pb.Tenant(adapter_keep_days=40_000), ["adapter_keep_days"])


async def test_the_quota_of_storage_counts_versions_until_they_are_purged(world: World):
    await make_tenant(world.tools.db, "acme", max_storage_bytes=10)
    await make_grant(world.tools.db, "acme", f"file://{world.folder}", may_write=True)
    await finished(world)
    await read_manifests(world)
    with pytest.raises(QuotaExceeded, match="adapters take 12 bytes; at most 10"):
        await world.submit("next")
    await deletion.delete_version(world.tools.db, number(1), BOSS)
    with pytest.raises(QuotaExceeded):
        await world.submit("next")
    world.clock.advance(31 * DAY_S)
    await run_loops(world)
    await world.submit("next")
