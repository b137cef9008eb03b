"""Jobs: reading them, and writing what a decision made of one."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from sqlalchemy import ColumnElement, exists, or_, select

from service.control.lifecycle import FINISHED, Artifact, Job, JobState
from service.control.runs import RunState
from service.db.models import JobRow, RunJobRow, RunRow
from service.db.transaction import Transaction

_PLAIN = [field.name for field in fields(Job) if field.name not in {"state", "artifact"}]  # columns of the same name


def value(row: JobRow) -> Job:
    """The row as decisions see it."""
    artifact = None
    if row.artifact_uri and row.artifact_sha256:
        artifact = Artifact(uri=row.artifact_uri, manifest_sha256=row.artifact_sha256)
    return Job(state=JobState(row.state), artifact=artifact, **{name: getattr(row, name) for name in _PLAIN})


def save(tx: Transaction, row: JobRow, job: Job) -> bool:
    """Writes a decision's job into its row. False when nothing changed."""
    if value(row) == job:
        return False
    row.state = job.state.value
    row.artifact_uri = job.artifact.uri if job.artifact else None
    row.artifact_sha256 = job.artifact.manifest_sha256 if job.artifact else None
    for name in _PLAIN:
        setattr(row, name, getattr(job, name))
    tx.touch(row)
    return True


async def by_name(tx: Transaction, tenant: str, job_id: str) -> JobRow | None:
    """The tenant's job of that id."""
    return await tx.session.scalar(select(JobRow).where(JobRow.tenant == tenant, JobRow.job_id == job_id).with_for_update())


def startable(now: datetime) -> list[ColumnElement[bool]]:
    """What holds of a queued job whose back-off is over. One that was queued again on request waits for the run that it
    failed in to be gone: n+1 never starts before n is observed gone."""
    due = or_(JobRow.retry_at.is_(None), JobRow.retry_at <= now)
    live = exists().where(RunJobRow.job_uid == JobRow.uid, RunJobRow.run_id == RunRow.id, RunRow.state != RunState.GONE.value)
    return [JobRow.state == JobState.QUEUED.value, due, or_(JobRow.attempt == 0, ~live)]


async def queued(tx: Transaction) -> Sequence[JobRow]:
    """Jobs that may start as far as their back-off goes, oldest first."""
    query = select(JobRow).where(*startable(tx.now)).order_by(JobRow.create_time, JobRow.uid)
    return (await tx.session.scalars(query)).all()


async def writing_to(tx: Transaction, output_uri: str) -> JobRow | None:
    """An unfinished job with that output root."""
    unfinished = JobRow.state.not_in([state.value for state in FINISHED])
    return await tx.session.scalar(select(JobRow).where(JobRow.output_uri == output_uri, unfinished))
