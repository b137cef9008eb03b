"""Runs and the jobs in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import func, select

from service.control.lifecycle import Artifact, Ending, JobState, Outcome
from service.control.runs import COMING, WITH_JOBS, RunState
from service.db.models import JobRow, RunJobRow, RunLogRow, RunRow
from service.db.transaction import Transaction


@dataclass(frozen=True)
class Member:
    """One job of a run's pack."""

    place: RunJobRow
    job: JobRow

    @property
    def ending(self) -> Ending | None:
        """What the run reported about this job's end."""
        if self.place.outcome is None:
            return None
        artifact = None
        if self.job.artifact_uri and self.job.artifact_sha256:
            artifact = Artifact(uri=self.job.artifact_uri, manifest_sha256=self.job.artifact_sha256)
        place = self.place
        return Ending(
            outcome=Outcome(self.place.outcome), reason=place.reason, message=place.message, retryable=place.retryable, artifact=artifact
        )

    @property
    def state(self) -> JobState:
        return JobState(self.job.state)


async def add(tx: Transaction, jobs: Sequence[JobRow], *, host_id: str | None = None, in_company: bool = False) -> RunRow:
    """A new run of these jobs, to be launched at once: on the warm workers of a host, or as its own."""
    run_id = f"run-{uuid4().hex[:16]}"
    run = RunRow(
        id=run_id,
        host_id=host_id or run_id,
        in_company=in_company,
        state=RunState.PENDING.value,
        create_time=tx.now,
        due_at=tx.now,
    )
    tx.session.add(run)
    await tx.session.flush()  # before the rows that refer to it
    tx.session.add_all(RunJobRow(run_id=run.id, job_uid=job.uid, attempt=job.attempt) for job in jobs)
    return run


async def get(tx: Transaction, run_id: str) -> RunRow | None:
    """The run of that id."""
    return await tx.session.scalar(select(RunRow).where(RunRow.id == run_id).with_for_update())


async def members(tx: Transaction, run_id: str) -> list[Member]:
    """The run's pack, in a stable order."""
    query = select(RunJobRow, JobRow).join(JobRow).where(RunJobRow.run_id == run_id).order_by(JobRow.create_time, JobRow.uid)
    return [Member(place, job) for place, job in await tx.session.execute(query)]


async def live_with(tx: Transaction, job_uids: Sequence[str]) -> dict[RunRow, list[Member]]:
    """The runs that these jobs are in now, each with its whole pack."""
    mine = select(RunJobRow.run_id).where(RunJobRow.job_uid.in_(job_uids))
    query = select(RunRow, RunJobRow, JobRow).join(RunJobRow, RunJobRow.run_id == RunRow.id).join(JobRow)
    found: dict[RunRow, list[Member]] = {}
    for run, place, job in await tx.session.execute(query.where(RunRow.id.in_(mine), RunRow.state.in_(WITH_JOBS))):
        found.setdefault(run, []).append(Member(place, job))
    return found


async def num_live(tx: Transaction) -> int:
    """Places that are held: a run that is not gone holds one, together with the runs before and after it on its host."""
    return await tx.session.scalar(select(func.count(RunRow.host_id.distinct())).where(RunRow.state != RunState.GONE.value)) or 0


def mark_launched(tx: Transaction, run: RunRow) -> None:
    """The backend has it. Its log is worth copying from now on."""
    if run.state in COMING:
        run.state = RunState.LAUNCHED.value
        run.launch_time = tx.now
        run.due_at = tx.now
        tx.session.add(RunLogRow(run_id=run.id, due_at=tx.now))
        tx.changed = True


def stop_from(run: RunRow, at: datetime, reason: str, message: str) -> None:
    """A hard stop is due then, unless one is due before."""
    if run.stop_at is None or at < run.stop_at:
        run.stop_at, run.stop_reason, run.stop_message = at, reason, message
