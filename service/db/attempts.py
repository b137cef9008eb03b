"""Reads the runs of jobs, oldest first: what a job's message shows as its attempts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from service.db.models import JobRow, RunJobRow, RunRow
from service.db.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """One attempt at a job: its place in the run, and the run."""

    member: RunJobRow
    run: RunRow
    pack_size: int


async def of_jobs(tx: Transaction, uids: Sequence[str]) -> dict[str, list[JobRun]]:
    """Every job's runs, by uid; one query for all of them."""
    companion = aliased(RunJobRow)
    pack_size = select(func.count()).where(companion.run_id == RunRow.id).scalar_subquery()
    query = select(RunJobRow, RunRow, pack_size).join(RunRow).where(RunJobRow.job_uid.in_(uids)).order_by(RunJobRow.attempt)
    found: dict[str, list[JobRun]] = {uid: [] for uid in uids}
    for member, run, size in await tx.session.execute(query):
        found[member.job_uid].append(JobRun(member=member, run=run, pack_size=size))
    return found


async def of_job(tx: Transaction, row: JobRow) -> list[JobRun]:
    """The job's runs; nothing is asked about one that never had any."""
    return (await of_jobs(tx, [row.uid]))[row.uid] if row.attempt else []
