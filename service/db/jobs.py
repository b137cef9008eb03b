"""Reads jobs, and writes what a decision made of one."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm.attributes import instance_dict

from lorafleet import work
from service.control.lifecycle import FINISHED, IN_A_RUN, Artifact, Job, JobState
from service.control.runs import WITH_JOBS
from service.core import telemetry
from service.core.concurrency import slices
from service.db import events
from service.db.after_commit import after_commit
from service.db.models import JobRow, RunJobRow, RunRow
from service.db.transaction import Transaction
from service.db.types import storable

_PLAIN = [field.name for field in fields(Job) if field.name not in {"state", "artifact"}]  # columns of the same name


def value(row: JobRow) -> Job:
    """The row as decisions see it."""
    artifact = None
    if row.artifact_uri and row.artifact_sha256:
        artifact = Artifact(uri=row.artifact_uri, manifest_sha256=row.artifact_sha256, size_bytes=row.artifact_bytes)
    return Job(state=JobState(row.state), artifact=artifact, **{name: getattr(row, name) for name in _PLAIN})


def save(tx: Transaction, row: JobRow, job: Job) -> bool:
    """Writes a decision's job into its row. False when nothing changed."""
    job = replace(job, message=storable(job.message))
    if value(row) == job:
        return False
    _tell_move(tx, row, job)
    if job.state is JobState.SUCCEEDED:
        tx.succeeded[row.uid] = row
    row.state = job.state.value
    row.artifact_uri = job.artifact.uri if job.artifact else None
    row.artifact_sha256 = job.artifact.manifest_sha256 if job.artifact else None
    row.artifact_bytes = job.artifact.size_bytes if job.artifact else None
    for name in _PLAIN:
        setattr(row, name, getattr(job, name))
    tx.touch(row)
    return True


def _tell_move(tx: Transaction, row: JobRow, job: Job) -> None:
    since_acceptance_s = (tx.now - row.create_time).total_seconds()
    has_moved = job.state.value != row.state
    is_admitted = row.attempt == 0 and job.state is JobState.ADMITTED
    has_stepped = row.first_step_time is None and job.first_step_time is not None

    def tell() -> None:
        if is_admitted:
            telemetry.measure("lorafleet_job_admission_seconds", since_acceptance_s)
        if has_stepped:
            telemetry.measure("lorafleet_job_first_step_seconds", since_acceptance_s)
        if has_moved:
            telemetry.count("lorafleet_job_moves_total", state=job.state.value)

    if is_admitted or has_stepped or has_moved:
        after_commit(tx, tell)


async def by_name(tx: Transaction, tenant: str, job_id: str) -> JobRow | None:
    """The tenant's job of that id. To change it, lock it with its run: `runs.lock_jobs`."""
    return await tx.session.scalar(select(JobRow).where(JobRow.tenant == tenant, JobRow.job_id == job_id))


def startable(now: datetime) -> list[ColumnElement[bool]]:
    """What holds of a queued job whose back-off is over. One that was queued again on request waits for the run that it
    failed in to be gone: n+1 never starts before n is observed gone."""
    due = or_(JobRow.retry_at.is_(None), JobRow.retry_at <= now)
    live = exists().where(RunJobRow.job_uid == JobRow.uid, RunJobRow.run_id == RunRow.id, RunRow.state.in_(WITH_JOBS))
    return [JobRow.state == JobState.QUEUED.value, due, or_(JobRow.attempt == 0, ~live)]


async def with_a_deadline(tx: Transaction) -> Sequence[JobRow]:
    """Jobs in runs whose time is limited and that were not asked to end."""
    in_a_run = JobRow.state.in_([state.value for state in IN_A_RUN])
    limited = (JobRow.max_run_time_s.is_not(None), JobRow.run_start_time.is_not(None), JobRow.cancel_requested.is_(False))
    return (await tx.session.scalars(select(JobRow).where(in_a_run, *limited).order_by(JobRow.uid))).all()


async def insert_all(tx: Transaction, rows: Sequence[JobRow]) -> None:
    """Stores new jobs with their first events, in a few statements for every thousand. The rows stay outside the session."""
    await insert_rows(tx, rows)
    await events.append(tx, rows)


async def insert_rows(tx: Transaction, rows: Sequence[JobRow]) -> None:
    """Stores new jobs; their first events are the caller's.

    Their times are a microsecond apart: wherever jobs stand by age, these stand in the order in which they came.
    """
    names = [column.key for column in JobRow.__table__.columns]
    for place, row in enumerate(rows):
        row.version, row.create_time, row.update_time = 1, tx.now + timedelta(microseconds=place), tx.now
    for some in slices(rows, events.SLICE):
        await tx.insert(JobRow, [{name: given.get(name) for name in names} for given in map(instance_dict, some)])
    tx.changed = True


async def ids_taken(tx: Transaction, tenant: str, job_ids: Sequence[str]) -> set[str]:
    """Those of the ids that jobs of the tenant have."""
    query = select(JobRow.job_id).where(JobRow.tenant == tenant, JobRow.job_id.in_(job_ids))
    return set((await tx.session.scalars(query)).all())


async def writers(tx: Transaction, output_uris: Sequence[str]) -> dict[str, str]:
    """Names of the unfinished jobs that write to these output roots, by output root."""
    unfinished = JobRow.state.not_in([state.value for state in FINISHED])
    query = select(JobRow.output_uri, JobRow.tenant, JobRow.job_id).where(JobRow.output_uri.in_(output_uris), unfinished)
    return {output: work.name_of(tenant, job_id) for output, tenant, job_id in await tx.session.execute(query)}
