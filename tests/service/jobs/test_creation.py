"""Creates that share a transaction: each ends as if those before it in the group had come before it."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import delete, func, select

from lorafleet.errors import AlreadyExists, InvalidSpec, QuotaExceeded
from lorafleet.v1 import training_service_pb2 as pb
from service.db.audit import AuditEntry
from service.db.database import Database
from service.db.errors import Unreachable
from service.db.models import AuditRow, GrantRow, JobEventRow, JobRow
from service.jobs.creation import AllowanceChanged, Draft, NewJob, accept
from service.jobs.jobs import Jobs
from service.jobs.new_rows import new_row
from service.store.uri_prefixes import Granted
from service.tenancy.allowances import Allowance
from tests.service.access.members import make_grant, make_tenant
from tests.service.api.test_queue_quota import may_wait
from tests.service.world import World

FIRST, SECOND = "7f6ab3ac-6f6b-4a38-9b32-6f1ed6b6a2f1", "0d0e7a55-30cb-4a0f-8a3c-1d6a5c6a1f10"

NO_GRANTS = Allowance(granted=(), store_credentials="")


def draft(
    world: World, job_id: str, request_id: str = "", *, output: str = "", max_steps: int = 5, allowance: Allowance = NO_GRANTS
) -> Draft:
    """A job that passed the checks outside the database."""
    spec = world.spec(training={"max_steps": max_steps})
    new = NewJob(tenant="acme", job_id=job_id, request_id=request_id, spec=spec)
    row = new_row("acme", job_id, spec, new.stored_spec, output or f"file:///out/{job_id}", "anonymous")
    return Draft(
        new=new, row=row, allowance=allowance, entry=AuditEntry(tenant="acme", principal=job_id, method="Create", resource="", peer="")
    )


async def accepted(world: World, drafts: Sequence[Draft]) -> list[str]:
    """Names of jobs, and names of errors."""
    found = await accept(world.tools.db, drafts)
    return [each.name if isinstance(each, pb.TrainingJob) else type(each).__name__ for each in found]


async def test_each_has_its_row_its_event_and_its_entry_in_the_audit_log(world: World):
    assert await accepted(world, [draft(world, name) for name in "abc"]) == [f"tenants/acme/jobs/{name}" for name in "abc"]
    async with world.tools.db.snapshot() as tx:
        jobs = list(await tx.session.scalars(select(JobRow).order_by(JobRow.create_time)))
        events = list(await tx.session.scalars(select(JobEventRow).order_by(JobEventRow.seq)))
        entries = {row.principal: row.resource for row in await tx.session.scalars(select(AuditRow))}
    assert [job.job_id for job in jobs] == ["a", "b", "c"], "in the order in which they came"
    assert [(event.job_uid, event.version) for event in events] == [(job.uid, 1) for job in jobs]
    assert entries == {name: f"tenants/acme/jobs/{name}" for name in "abc"}


async def test_a_repeat_in_the_group_gets_the_job_of_the_first(world: World):
    name = "tenants/acme/jobs/a"
    assert await accepted(world, [draft(world, "a", FIRST), draft(world, "a", FIRST)]) == [name, name]
    assert await accepted(world, [draft(world, "a", FIRST), draft(world, "b", SECOND)]) == [name, "tenants/acme/jobs/b"]
    async with world.tools.db.snapshot() as tx:
        assert await tx.session.scalar(select(func.count()).select_from(JobRow)) == 2
        assert await tx.session.scalar(select(func.count()).select_from(AuditRow)) == 2, "an answered repeat writes nothing"


async def test_what_is_taken_in_the_group_is_refused_by_its_own_error(world: World):
    group = [
        draft(world, "a", FIRST),
        draft(world, "a"),
        draft(world, "b", output="file:///out/a"),
        draft(world, "a", FIRST, max_steps=6),
        draft(world, "c"),
    ]
    refused = [AlreadyExists.__name__, InvalidSpec.__name__, AlreadyExists.__name__]
    assert await accepted(world, group) == ["tenants/acme/jobs/a", *refused, "tenants/acme/jobs/c"]


async def test_a_group_fills_the_quota_and_the_rest_of_it_is_refused(world: World):
    await make_tenant(world.tools.db, "acme")
    await may_wait(world, 3)
    group = [draft(world, name) for name in "abcde"]
    assert await accepted(world, group) == [*(f"tenants/acme/jobs/{name}" for name in "abc"), *[QuotaExceeded.__name__] * 2]
    assert await accepted(world, [draft(world, "f")]) == [QuotaExceeded.__name__]


async def test_what_was_checked_by_grants_that_no_longer_hold_is_not_accepted(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", "file:///in")
    holds = Allowance(granted=(Granted("file:///in", may_write=False),), store_credentials="")
    other_credentials = Allowance(granted=holds.granted, store_credentials="old")
    group = [draft(world, "a"), draft(world, "b", allowance=other_credentials), draft(world, "c", allowance=holds)]
    assert await accepted(world, group) == [AllowanceChanged.__name__] * 2 + ["tenants/acme/jobs/c"]


async def test_a_grant_counts_for_the_next_job_and_one_that_is_taken_away_no_longer_does(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", "file:///elsewhere")
    with pytest.raises(InvalidSpec, match="is not granted"):
        await world.submit("a")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}")
    await world.submit("a")
    async with world.tools.db.transaction() as tx:
        await tx.session.execute(delete(GrantRow).where(GrantRow.prefix == f"file://{world.folder}"))
    with pytest.raises(InvalidSpec, match="is not granted"):
        await world.submit("b")


async def test_creates_whose_commit_was_cut_off_are_not_done_again(world: World, monkeypatch: pytest.MonkeyPatch):
    groups: list[int] = []

    async def lost(db: Database, drafts: Sequence[Draft]) -> list[object]:
        groups.append(len(drafts))
        raise Unreachable("cut", was_committing=True)

    monkeypatch.setattr("service.jobs.jobs.accept", lost)
    jobs = Jobs(world.tools.db, world.tools.store, world.tools.locations.artifacts_uri, world.tools.stop)
    found = await asyncio.gather(*(jobs._accept("acme", draft(world, name)) for name in "abc"), return_exceptions=True)
    assert all(isinstance(each, Unreachable) for each in found)
    assert groups == [3]


async def test_a_regularisation_set_needs_a_grant_and_something_in_its_folder(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}")

    async def submit(uri: str) -> None:
        await world.submit("a", dataset={"uri": f"file://{world.folder}/data", "regularization": {"uri": uri, "weight": 1.0}})

    with pytest.raises(InvalidSpec, match=r"dataset\.regularization\.uri: .* is not granted"):
        await submit("file:///elsewhere/dogs")
    with pytest.raises(InvalidSpec, match=r"dataset\.regularization\.uri: nothing lies under"):
        await submit(f"file://{world.folder}/dogs")


async def test_an_adapter_to_go_on_from_needs_a_grant(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}")
    with pytest.raises(InvalidSpec, match=r"adapter\.start\.uri: .* is not granted"):
        await world.submit("a", adapter={"start": {"uri": "file:///elsewhere/lora.safetensors"}})
    await world.submit("a", adapter={"start": {"uri": f"file://{world.folder}/lora.safetensors"}})


async def test_an_adapter_to_combine_with_needs_a_grant(world: World):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}")
    own, others = (f"{folder}/lora.safetensors" for folder in (f"file://{world.folder}", "file:///elsewhere"))
    with pytest.raises(InvalidSpec, match=r"output\.merge\.adapters\[1\]\.uri: .* is not granted"):
        await world.submit("a", output={"merge": {"adapters": [{"uri": own}, {"uri": others}]}})
    await world.submit("a", output={"merge": {"adapters": [{"uri": own}]}})


@pytest.mark.parametrize("field", ["vae_uri", "parts.vae"])
async def test_a_part_of_the_base_needs_a_grant_and_something_in_its_folder(world: World, field: str):
    await make_tenant(world.tools.db, "acme")
    await make_grant(world.tools.db, "acme", f"file://{world.folder}")
    base = f"file://{world.folder}/base"

    async def submit(uri: str) -> None:
        given = {"vae_uri": uri} if field == "vae_uri" else {"parts": {"vae": uri}}
        await world.submit("a", base_model={"uri": base, **given})

    with pytest.raises(InvalidSpec, match=rf"base_model\.{field}: .* is not granted"):
        await submit("file:///elsewhere/vae")
    with pytest.raises(InvalidSpec, match=rf"base_model\.{field}: nothing lies under"):
        await submit(f"file://{world.folder}/vae")
    await submit(base)
