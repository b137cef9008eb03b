"""Keeps the event log that watches read: one event for each job that a transaction changed, in commit order."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, update

from service.core import telemetry
from service.core.concurrency import slices
from service.db import adapter_events, attempts, audit
from service.db.after_commit import after_commit
from service.db.models import JobEventRow, JobRow, ServiceRow
from service.db.transaction import Transaction

COMPACTED_AT_ONCE = 5000  # events that one transaction deletes
SLICE = 1000  # rows written by one statement: the event loop goes on between two of them


async def record(tx: Transaction) -> None:
    """Appends an event for every touched job. Runs right before commit, so that it sees all that was done, and holds the one
    row that all writers need for no longer than that takes."""
    audit.record(tx)
    await tx.session.flush()  # what has to wait for others waits before that
    if tx.has_admitted:
        await tx.session.execute(update(ServiceRow).values(admission_epoch=ServiceRow.admission_epoch + 1))
    if tx.touched:
        jobs = list(tx.touched.values())
        for job in jobs:
            job.version += 1
            job.update_time = tx.now
        await tx.session.flush()
        await append(tx, jobs)
    await adapter_events.append(tx)


async def append(tx: Transaction, jobs: Sequence[JobRow]) -> list[bytes]:
    """An event for each of these jobs as they are now, and what it says, as `Database` was told to say it. A few statements for every
    thousand of them."""
    ran = [job.uid for job in jobs if job.attempt]
    runs = await attempts.of_jobs(tx, ran) if ran else {}
    advance = update(ServiceRow).values(last_seq=ServiceRow.last_seq + len(jobs)).returning(ServiceRow.last_seq)
    last_seq = (await tx.session.execute(advance)).scalar_one()
    after_commit(tx, lambda: telemetry.count("lorafleet_events_appended_total", len(jobs)))
    payloads: list[bytes] = []
    for some in slices(list(enumerate(jobs, start=last_seq - len(jobs) + 1)), SLICE):
        said = [tx.job_event(job, runs.get(job.uid, [])) for _, job in some]
        await tx.insert(JobEventRow, [_values(tx, seq, job, payload) for (seq, job), payload in zip(some, said, strict=True)])
        payloads += said
    return payloads


def _values(tx: Transaction, seq: int, job: JobRow, payload: bytes) -> dict[str, object]:
    return {"seq": seq, "tenant": job.tenant, "job_uid": job.uid, "version": job.version, "time": tx.now, "payload": payload}


async def service(tx: Transaction) -> ServiceRow:
    """The row about the service: the instance and the cursor."""
    return (await tx.session.execute(select(ServiceRow))).scalar_one()


async def touch_service(tx: Transaction) -> None:
    """Writes that row as it is: a write that tells whether one goes through."""
    await tx.session.execute(update(ServiceRow).values(instance=ServiceRow.instance))


async def after(tx: Transaction, seq: int, *which: ColumnElement[bool], limit: int) -> Sequence[tuple[JobEventRow, JobRow]]:
    """The next events behind `seq`, oldest first, each with its job."""
    query = select(JobEventRow, JobRow).join(JobRow).where(JobEventRow.seq > seq, *which).order_by(JobEventRow.seq).limit(limit)
    return [(event, job) for event, job in await tx.session.execute(query)]


async def compact(tx: Transaction, before: datetime, *, size: int = COMPACTED_AT_ONCE) -> int:
    """Deletes up to `size` of the events older than `before`, oldest first; watches further behind must start over.
    Returns how many."""
    oldest = await tx.session.scalar(select(func.min(JobEventRow.seq)))
    old = (JobEventRow.time < before, JobEventRow.seq < (oldest or 0) + size)
    newest = await tx.session.scalar(select(func.max(JobEventRow.seq)).where(*old))
    if newest is None:
        return 0
    result = await tx.session.execute(delete(JobEventRow).where(JobEventRow.seq <= newest).returning(JobEventRow.seq))
    # Last, for all writers need that row; and never back, should another have come further.
    await tx.session.execute(update(ServiceRow).where(ServiceRow.floor_seq < newest).values(floor_seq=newest))
    num_deleted = len(result.all())
    after_commit(tx, lambda: telemetry.count("lorafleet_events_compacted_total", num_deleted))
    return num_deleted
