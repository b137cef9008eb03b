"""Reads and writes batches and their jobs, in queries whose number does not grow with the jobs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_, select

from service.control.lifecycle import FINISHED, JobState
from service.db import jobs
from service.db.job_pages import PageKey
from service.db.models import BatchRow, JobRow
from service.db.transaction import Transaction

_CANCELLABLE = [state.value for state in JobState if state not in FINISHED]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many jobs of a batch are in each state, and when the newest end of one was."""

    by_state: Mapping[JobState, int]
    last_end: datetime | None = None


async def by_name(tx: Transaction, tenant: str, batch_id: str) -> BatchRow | None:
    """The tenant's batch of that id."""
    return await tx.session.scalar(select(BatchRow).where(BatchRow.tenant == tenant, BatchRow.batch_id == batch_id))


async def by_request(tx: Transaction, tenant: str, request_id: str) -> BatchRow | None:
    """The batch that a request made before."""
    return await tx.session.scalar(select(BatchRow).where(BatchRow.tenant == tenant, BatchRow.request_id == request_id))


async def creator(tx: Transaction, batch_uid: str) -> str:
    """Who created the batch, which holds at least one job."""
    query = select(JobRow.created_by).where(JobRow.batch_uid == batch_uid).order_by(JobRow.batch_index).limit(1)
    return (await tx.session.scalars(query)).one()


async def insert(tx: Transaction, batch: BatchRow, rows: Sequence[JobRow]) -> None:
    """Stores a new batch with its jobs."""
    batch.create_time = tx.now
    tx.session.add(batch)
    await tx.session.flush()  # before the rows that refer to it
    await jobs.insert_all(tx, rows)


async def counts(tx: Transaction, uids: Sequence[str]) -> dict[str, Counts]:
    """The counts of each batch, by uid: one query for all, answered from an index alone."""
    grouped = (JobRow.batch_uid, JobRow.state)
    query = select(*grouped, func.count(), func.max(JobRow.end_time)).where(JobRow.batch_uid.in_(uids)).group_by(*grouped)
    found: defaultdict[str | None, list[tuple[JobState, int, datetime | None]]] = defaultdict(list)
    for uid, state, count, last_end in await tx.session.execute(query):
        found[uid].append((JobState(state), count, last_end))
    return {
        uid: Counts(
            by_state={state: count for state, count, _ in found[uid]},
            last_end=max((end for _, _, end in found[uid] if end is not None), default=None),
        )
        for uid in uids
    }


async def page(tx: Transaction, tenant: str, *, behind: PageKey | None, size: int) -> Sequence[BatchRow]:
    """Up to `size` batches of the tenant, newest first."""
    query = select(BatchRow).where(BatchRow.tenant == tenant)
    if behind is not None:
        time, uid = BatchRow.create_time, BatchRow.uid
        query = query.where(or_(time < behind.create_time, and_(time == behind.create_time, uid < behind.uid)))
    query = query.order_by(BatchRow.create_time.desc(), BatchRow.uid.desc()).limit(size)
    return (await tx.session.scalars(query)).all()


async def jobs_page(
    tx: Transaction, batch_uid: str, matches: Sequence[ColumnElement[bool]] = (), *, behind: int, size: int
) -> Sequence[JobRow]:
    """Up to `size` jobs of the batch in the order of their items, behind the item of that index (-1: from the first on)."""
    query = select(JobRow).where(JobRow.batch_uid == batch_uid, JobRow.batch_index > behind, *matches)
    return (await tx.session.scalars(query.order_by(JobRow.batch_index).limit(size))).all()


async def to_cancel(tx: Transaction, batch_uid: str, *, size: int) -> Sequence[str]:
    """Uids of up to `size` jobs that were not asked to end yet; queued ones first, so that they do not start in the meantime."""
    unasked = (JobRow.state.in_(_CANCELLABLE), JobRow.cancel_requested.is_(False))
    query = select(JobRow.uid).where(JobRow.batch_uid == batch_uid, *unasked)
    query = query.order_by(JobRow.state != JobState.QUEUED.value, JobRow.batch_index).limit(size)
    return (await tx.session.scalars(query)).all()


async def failed(tx: Transaction, uids: Sequence[str]) -> Sequence[JobRow]:
    """Those of the jobs that have failed, locked, in the order of their items."""
    query = select(JobRow).where(JobRow.uid.in_(uids), JobRow.state == JobState.FAILED.value).order_by(JobRow.uid)
    return sorted(await tx.session.scalars(tx.locked(query)), key=lambda row: row.batch_index or 0)
