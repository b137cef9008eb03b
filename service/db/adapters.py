"""Writes what succeeded jobs leave into the registry, and reads adapters and their versions."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import ColumnElement, Table, literal, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from service.control.adapter_facts import VersionState, adapter_of, facts_of, is_ours
from service.control.adapter_parents import Parent, job_of, of_start, start_of
from service.control.lifecycle import JobState
from service.control.retention import KEEP_DELETED
from service.control.webhooks import EventKind
from service.db.models import JobRow
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction

OLDER_AT_ONCE = 100  # jobs of before that get their versions in one transaction
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_COUNTS = ("last_number", "newest_version", "keep_newest", "keep_days", "version")
_DESCRIBED = ("family", "method", "rank", "trigger", "base_digest", "labels", "quality")
NOT_PURGED = or_(AdapterRow.delete_time.is_(None), AdapterRow.purge_at.is_not(None))

AdapterKey = tuple[str, str]  # tenant and id


async def register(tx: Transaction, jobs: Sequence[JobRow]) -> None:
    """A version for the artifact of each of these jobs, which have succeeded in this transaction: both are kept or neither. One that has
    a version gets no other, which the table itself makes sure of.

    Called at the end, with the jobs locked: adapters are locked after jobs, in the order of their names.
    """
    new = [job for job in jobs if job.adapter_version is None and job.artifact_uri and job.artifact_sha256]
    if not new:
        return
    adapters = await _locked(tx, {_key(job) for job in new})
    parents = await _parents(tx, new)
    by_adapter = defaultdict[AdapterKey, list[JobRow]](list)
    for job in sorted(new, key=lambda job: (job.end_time or tx.now, job.uid)):
        by_adapter[_key(job)].append(job)
    for key, its_jobs in by_adapter.items():
        revive(adapters[key])
        for job in its_jobs:
            made = _next_version(tx, adapters[key], job)
            made.parents = parents[job.uid] or None
            tx.session.add(made)
            tell_of(tx, made, EventKind.VERSION_CREATED, job=job.name)
    tx.changed = True


async def _parents(tx: Transaction, jobs: Sequence[JobRow]) -> dict[str, list[Parent]]:
    """By the jobs' uids, what their training began with: a job that is named there is its version."""
    starts = {job.uid: (job.tenant, start_of(job.spec)) for job in jobs}
    named = {(tenant, job_of(start)) for tenant, start in starts.values() if job_of(start)}
    which = (tuple_(JobRow.tenant, JobRow.job_id).in_(sorted(named)), JobRow.adapter_version.is_not(None))
    rows: Sequence[JobRow] = (await tx.session.scalars(select(JobRow).where(*which))).all() if named else ()
    known = {(row.tenant, row.job_id): f"tenants/{row.tenant}/adapters/{row.adapter_id}/versions/{row.adapter_version}" for row in rows}
    return {uid: of_start(start, {job_of(start): known.get((tenant, job_of(start)), "")}) for uid, (tenant, start) in starts.items()}


def _key(job: JobRow) -> AdapterKey:
    return job.tenant, adapter_of(job.spec, job.job_id)


async def _locked(tx: Transaction, keys: set[AdapterKey]) -> dict[AdapterKey, AdapterRow]:
    """These adapters, of which some may be new, locked."""
    ordered = sorted(keys)
    insert = _INSERT[tx.session.get_bind().dialect.name](cast(Table, AdapterRow.__table__))
    await tx.session.execute(insert.on_conflict_do_nothing(), [_new(tx, *key) for key in ordered])
    query = select(AdapterRow).where(tuple_(AdapterRow.tenant, AdapterRow.adapter_id).in_(ordered))
    rows = await tx.session.scalars(tx.locked(query.order_by(AdapterRow.tenant, AdapterRow.adapter_id)))
    return {(row.tenant, row.adapter_id): row for row in rows}


def _new(tx: Transaction, tenant: str, adapter_id: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"family": "", "method": "", "rank": 0, "trigger": "", "base_digest": "", "labels": {}, "quality": {}}
    times = {"create_time": tx.now, "update_time": tx.now}
    return {"uid": uuid4().hex, "tenant": tenant, "adapter_id": adapter_id, **dict.fromkeys(_COUNTS, 0), **nothing, **times}


def _next_version(tx: Transaction, adapter: AdapterRow, job: JobRow) -> AdapterVersionRow:
    adapter.last_number += 1
    adapter.newest_version = adapter.last_number
    row = AdapterVersionRow(
        uid=uuid4().hex,
        adapter_uid=adapter.uid,
        tenant=adapter.tenant,
        adapter_id=adapter.adapter_id,
        number=adapter.last_number,
        job_uid=job.uid,
        job_id=job.job_id,
        root_uri=job.output_uri,
        artifact_uri=job.artifact_uri,
        manifest_sha256=job.artifact_sha256,
        size_bytes=job.artifact_bytes,
        state=VersionState.PENDING.value,
        base_digest="",
        quality={},
        created_by=job.created_by,
        create_time=job.end_time or tx.now,
        due_at=tx.now,
        is_ours=is_ours(job.spec),
        **asdict(facts_of(job.spec, job.labels)),
    )
    job.adapter_id, job.adapter_version = adapter.adapter_id, row.number
    describe(tx, adapter, row)
    adapter.retain_at = tx.now
    return row


def revive(adapter: AdapterRow) -> None:
    """Something new is made for it: it is not deleted any more. Lock it first."""
    adapter.delete_time = adapter.purge_at = None


def mark_deleted(tx: Transaction, version: AdapterVersionRow, by: str) -> None:
    """It can be had back for a while. Lock its adapter first, and `refresh` it then."""
    version.delete_time, version.purge_at = tx.now, tx.now + KEEP_DELETED
    tell_of(tx, version, EventKind.VERSION_DELETED, by=by)


async def creators(tx: Transaction, adapter: AdapterRow) -> Sequence[str]:
    """Who made its versions, of those that are not deleted."""
    which = (AdapterVersionRow.adapter_uid == adapter.uid, AdapterVersionRow.delete_time.is_(None))
    return (await tx.session.scalars(select(AdapterVersionRow.created_by).where(*which).distinct())).all()


async def refresh(tx: Transaction, adapter: AdapterRow) -> None:
    """A version was deleted, or is there again: the adapter's facts are those of the newest that is there. Lock it first."""
    await tx.session.flush()
    [newest] = await versions_page(tx, adapter, below=None, size=1) or [None]
    adapter.newest_version = 0 if newest is None else newest.number
    if newest is not None:
        describe(tx, adapter, newest)
    touch(tx, adapter)


def describe(tx: Transaction, adapter: AdapterRow, version: AdapterVersionRow) -> None:
    """The adapter looks different: its facts are those of its newest version. Lock it first."""
    if version.number == adapter.newest_version:
        for name in _DESCRIBED:
            setattr(adapter, name, getattr(version, name))
    touch(tx, adapter)


def tell(tx: Transaction, of: AdapterRow | AdapterVersionRow, kind: EventKind, **data: Any) -> None:
    """It happened in this transaction: the event log has it, or neither is kept."""
    tx.told.append({"tenant": of.tenant, "adapter_id": of.adapter_id, "kind": kind.value, "data": data})


def tell_of(tx: Transaction, version: AdapterVersionRow, kind: EventKind, **data: Any) -> None:
    """The same, of a version."""
    tell(tx, version, kind, version=version.name, **data)


def touch(tx: Transaction, adapter: AdapterRow) -> None:
    """Something of the adapter has changed. Lock it first."""
    adapter.version += 1
    adapter.update_time = tx.now
    tx.changed = True


async def register_older(tx: Transaction) -> int:
    """Versions for jobs that a server of a version before has let succeed; how many. They are not told to watchers."""
    which = (JobRow.state == JobState.SUCCEEDED.value, JobRow.adapter_version.is_(None))
    complete = (JobRow.artifact_uri.is_not(None), JobRow.artifact_sha256.is_not(None))
    query = tx.locked(select(JobRow).where(*which, *complete).order_by(JobRow.uid).limit(OLDER_AT_ONCE), skip=True)
    found = (await tx.session.scalars(query)).all()
    await register(tx, found)
    return len(found)


async def by_name(tx: Transaction, tenant: str, adapter_id: str) -> AdapterRow | None:
    """The tenant's adapter of that id, unless it is purged; in a transaction that writes it is locked."""
    query = select(AdapterRow).where(AdapterRow.tenant == tenant, AdapterRow.adapter_id == adapter_id).where(NOT_PURGED)
    return await tx.session.scalar(tx.locked(query))


async def by_ids(tx: Transaction, keys: Collection[AdapterKey]) -> Sequence[AdapterRow]:
    """Those adapters, purged ones too."""
    if not keys:
        return []
    return (await tx.session.scalars(select(AdapterRow).where(tuple_(AdapterRow.tenant, AdapterRow.adapter_id).in_(sorted(keys))))).all()


async def locked(tx: Transaction, uid: str) -> AdapterRow:
    """The adapter, locked."""
    return (await tx.session.scalars(tx.locked(select(AdapterRow).where(AdapterRow.uid == uid)))).one()


async def version_of(tx: Transaction, adapter: AdapterRow, number: int) -> AdapterVersionRow | None:
    """The adapter's version of that number; in a transaction that writes it is locked. Lock the adapter first."""
    query = select(AdapterVersionRow).where(AdapterVersionRow.adapter_uid == adapter.uid, AdapterVersionRow.number == number)
    return await tx.session.scalar(tx.locked(query))


async def open_for_a_version(tx: Transaction, tenant: str, adapter_id: str) -> AdapterRow:
    """The adapter, which may be new, locked, with the number of its next version as its last."""
    adapter = (await _locked(tx, {(tenant, adapter_id)}))[tenant, adapter_id]
    revive(adapter)
    adapter.last_number += 1
    return adapter


def add_version(tx: Transaction, adapter: AdapterRow, version: AdapterVersionRow) -> None:
    """A version of that number, which no job has made. Its manifest is read like any other's."""
    adapter.newest_version, adapter.retain_at = version.number, tx.now
    tx.session.add(version)
    describe(tx, adapter, version)
    tell_of(tx, version, EventKind.VERSION_CREATED, source=version.source_uri)


async def version_of_request(tx: Transaction, tenant: str, request_id: str) -> AdapterVersionRow | None:
    """The version that a call has imported before."""
    which = (AdapterVersionRow.tenant == tenant, AdapterVersionRow.request_id == request_id)
    return await tx.session.scalar(select(AdapterVersionRow).where(*which))


async def version_of_job(tx: Transaction, job: JobRow) -> AdapterVersionRow | None:
    """The version that the job's artifact is."""
    return await tx.session.scalar(select(AdapterVersionRow).where(AdapterVersionRow.job_uid == job.uid))


async def files_of(tx: Transaction, version: AdapterVersionRow) -> dict[str, Any]:
    """Its files, as its manifest has them, which other queries leave out."""
    return await tx.session.scalar(select(AdapterVersionRow.files).where(AdapterVersionRow.uid == version.uid)) or {}


async def page(
    tx: Transaction,
    tenant: str,
    matches: Sequence[ColumnElement[bool]],
    *,
    by_id: bool,
    descending: bool,
    behind: Sequence[Any] | None,
    size: int,
) -> Sequence[AdapterRow]:
    """Up to `size` adapters of the tenant, by id or by age. `behind`: the values of these columns of the last one before."""
    keys = (AdapterRow.adapter_id,) if by_id else (AdapterRow.create_time, AdapterRow.uid)
    query = select(AdapterRow).where(AdapterRow.tenant == tenant, *matches)
    if behind is not None:
        here, there = tuple_(*keys), tuple_(*(literal(value, key.type) for key, value in zip(keys, behind, strict=True)))
        query = query.where(here < there if descending else here > there)
    query = query.order_by(*(key.desc() if descending else key.asc() for key in keys)).limit(size)
    return (await tx.session.scalars(query)).all()


async def versions_page(
    tx: Transaction, adapter: AdapterRow, *, below: int | None, size: int, deleted_too: bool = False
) -> Sequence[AdapterVersionRow]:
    """Up to `size` versions, newest first, of those with a smaller number than `below`."""
    query = select(AdapterVersionRow).where(AdapterVersionRow.adapter_uid == adapter.uid)
    if not deleted_too:
        query = query.where(AdapterVersionRow.delete_time.is_(None))
    if below is not None:
        query = query.where(AdapterVersionRow.number < below)
    return (await tx.session.scalars(query.order_by(AdapterVersionRow.number.desc()).limit(size))).all()
