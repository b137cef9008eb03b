"""Reads the queue for admission: ten thousand jobs in one small row each, specs only of those not seen before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import aliased

from service.control.lifecycle import JobState
from service.core.concurrency import slices
from service.db.jobs import startable
from service.db.models import JobRow, RunJobRow, ServiceRow, TableBase
from service.db.transaction import Transaction

SLICE = 1000  # uids in one statement


@dataclass(frozen=True)
class WaitingJob:
    """A queued job that may start as far as its own back-off goes."""

    uid: str
    kind: str
    tenant: str
    create_time: datetime
    batch_index: int | None
    attempt: int
    first_step_time: datetime | None


_ADMISSION = 0x10FA_F1EE_7AD0  # PostgreSQL's advisory lock for admission


async def admission_epoch(tx: Transaction) -> int:
    """The epoch that `lock_admission` compares: read it in the snapshot on which a decision is made."""
    return (await tx.session.execute(select(ServiceRow.admission_epoch))).scalar_one()


async def lock_admission(tx: Transaction, epoch: int) -> bool:
    """Admission is exclusive until commit, which raises the epoch. Take it before any other lock of the transaction.

    False when another has decided since `epoch` was read: what was decided on that reading must not be applied.
    """
    if tx.session.get_bind().dialect.name == "postgresql":  # the row of the service itself is locked last, by the event log
        await tx.session.execute(select(func.pg_advisory_xact_lock(_ADMISSION)))
    tx.has_admitted = await admission_epoch(tx) == epoch
    return tx.has_admitted


async def num_waiting(tx: Transaction) -> int:
    """How many jobs could start now."""
    return await tx.session.scalar(select(func.count()).select_from(JobRow).where(*startable(tx.now))) or 0


async def waiting(tx: Transaction) -> list[WaitingJob]:
    """All jobs that could start now, the oldest first."""
    times = (JobRow.create_time, JobRow.batch_index, JobRow.attempt, JobRow.first_step_time)
    query = select(JobRow.uid, JobRow.kind, JobRow.tenant, *times).where(*startable(tx.now))
    query = query.order_by(JobRow.create_time, JobRow.batch_index, JobRow.uid)
    return [WaitingJob(*row) for row in await tx.session.execute(query)]


async def specs(tx: Transaction, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The specs of these jobs, by uid."""
    found: dict[str, dict[str, Any]] = {}
    for some in slices(uids, SLICE):
        query = select(JobRow.uid, JobRow.spec).where(JobRow.uid.in_(some))
        found.update((uid, spec) for uid, spec in await tx.session.execute(query))
    return found


async def still_waiting(tx: Transaction, uids: Sequence[str]) -> dict[str, JobRow]:
    """Those of the jobs that could still start, by uid, locked in the order of their uids."""
    found: dict[str, JobRow] = {}
    for some in slices(sorted(uids), SLICE):
        query = select(JobRow).where(JobRow.uid.in_(some), *startable(tx.now)).order_by(JobRow.uid)
        found.update({row.uid: row for row in await tx.session.scalars(tx.locked(query, of=JobRow))})
    return found


@dataclass(frozen=True)
class Announced:
    """The reason and position last written to a queued job."""

    reason: str
    message: str
    position: int | None


async def announced(tx: Transaction) -> dict[str, Announced]:
    """The last announcement to each job that could start now, by uid."""
    query = select(JobRow.uid, JobRow.reason, JobRow.message, JobRow.queue_position).where(*startable(tx.now))
    return {uid: Announced(reason, message, position) for uid, reason, message, position in await tx.session.execute(query)}


async def put_positions(tx: Transaction, positions: Mapping[str, int]) -> None:
    """Writes queue positions, by uid, of jobs that still wait. Without an event: they show when a job is read."""
    values = [{"job": uid, "position": position} for uid, position in sorted(positions.items())]
    table = TableBase.metadata.tables[JobRow.__tablename__]
    change = update(table).where(table.c.uid == bindparam("job"), table.c.state == JobState.QUEUED.value)
    await (await tx.session.connection()).execute(change.values(queue_position=bindparam("position")), values)


async def newest(tx: Transaction) -> datetime | None:
    """When the newest of the queued jobs was created."""
    return await tx.session.scalar(select(func.max(JobRow.create_time)).where(JobRow.state == JobState.QUEUED.value))


async def had_company(tx: Transaction, uids: Sequence[str]) -> set[str]:
    """Those of the jobs that were ever in a run with others."""
    companion = aliased(RunJobRow)
    query = select(RunJobRow.job_uid).distinct()
    query = query.join(companion, (companion.run_id == RunJobRow.run_id) & (companion.job_uid != RunJobRow.job_uid))
    found: set[str] = set()
    for some in slices(uids, SLICE):
        found.update((await tx.session.scalars(query.where(RunJobRow.job_uid.in_(some)))).all())
    return found
