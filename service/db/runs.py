"""Reads and writes runs and the jobs in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Select, func, or_, select

from lorafleet.contract.run_manifest import Standby
from service.control.lifecycle import Artifact, Ending, JobState, Outcome
from service.control.runs import COMING, WITH_JOBS, RunState
from service.db.errors import Contended
from service.db.models import JobRow, RunJobRow, RunLogRow, RunRow
from service.db.transaction import Transaction
from service.db.types import storable


@dataclass(frozen=True)
class PackMember:
    """One job of a run's pack."""

    place: RunJobRow
    job: JobRow

    @property
    def ending(self) -> Ending | None:
        """The end of this job as the run reported it."""
        if self.place.outcome is None:
            return None
        artifact = None
        if self.job.artifact_uri and self.job.artifact_sha256:
            sha256, size_bytes = self.job.artifact_sha256, self.job.artifact_bytes
            artifact = Artifact(uri=self.job.artifact_uri, manifest_sha256=sha256, size_bytes=size_bytes)
        place = self.place
        return Ending(
            outcome=Outcome(self.place.outcome), reason=place.reason, message=place.message, retryable=place.retryable, artifact=artifact
        )

    @property
    def state(self) -> JobState:
        return JobState(self.job.state)


async def add(
    tx: Transaction,
    jobs: Sequence[JobRow],
    *,
    host_id: str | None = None,
    in_company: bool = False,
    store_credentials: str = "",
    standby: Standby | None = None,
) -> RunRow:
    """A new run of these jobs, to be launched at once: on the warm workers of a host, or on new ones; or of none, to stand by."""
    run_id = f"run-{uuid4().hex[:16]}"
    run = RunRow(
        id=run_id,
        host_id=host_id or run_id,
        in_company=in_company,
        store_credentials=store_credentials,
        standby=None if standby is None else standby.model_dump(mode="json"),
        state=RunState.PENDING.value,
        create_time=tx.now,
        due_at=tx.now,
    )
    tx.session.add(run)
    await tx.session.flush()  # before the rows that refer to it
    tx.session.add_all(RunJobRow(run_id=run.id, job_uid=job.uid, attempt=job.attempt) for job in jobs)
    return run


def standby_of(run: RunRow) -> Standby | None:
    """Set where its workers came up to stand by."""
    return None if run.standby is None else Standby.model_validate(run.standby)


async def get(tx: Transaction, run_id: str) -> RunRow | None:
    """The run of that id, to be read. To change it: `lock`."""
    return await tx.session.get(RunRow, run_id)


async def lock(tx: Transaction, run_id: str) -> RunRow | None:
    """The run of that id, locked with all others of its host. To change a run, its members or their progress, hold this lock
    (or the run's own, by its token)."""
    host_id = await tx.session.scalar(select(RunRow.host_id).where(RunRow.id == run_id))
    if host_id is None:
        return None
    there = (RunRow.host_id == host_id, or_(RunRow.state != RunState.GONE.value, RunRow.id == run_id))
    found = await tx.session.scalars(tx.locked(select(RunRow).where(*there).order_by(RunRow.id)))
    return next((run for run in found if run.id == run_id), None)


async def members(tx: Transaction, run_id: str) -> list[PackMember]:
    """The run's pack in a stable order, to be read. To change it: `lock_members`."""
    return (await packs(tx, [run_id]))[run_id]


async def packs(tx: Transaction, run_ids: Sequence[str]) -> dict[str, list[PackMember]]:
    """The packs of runs, each as `members` has it."""
    query = select(RunJobRow, JobRow).join(JobRow).where(RunJobRow.run_id.in_(run_ids)).order_by(JobRow.create_time, JobRow.uid)
    found: dict[str, list[PackMember]] = {run_id: [] for run_id in run_ids}
    for place, job in await tx.session.execute(query):
        found[place.run_id].append(PackMember(place, job))
    return found


async def tenant(tx: Transaction, run_id: str) -> str:
    """The tenant of the run. Only for runs of a single tenant."""
    query = select(JobRow.tenant).join(RunJobRow, RunJobRow.job_uid == JobRow.uid).where(RunJobRow.run_id == run_id)
    return (await tx.session.scalars(query.limit(1))).one()


async def lock_members(tx: Transaction, run_id: str) -> list[PackMember]:
    """The run's pack in the order of `members`, its jobs locked. Lock the run first."""
    query = select(RunJobRow, JobRow).join(JobRow).where(RunJobRow.run_id == run_id).order_by(JobRow.uid)
    found = [PackMember(place, job) for place, job in await tx.session.execute(tx.locked(query))]
    return sorted(found, key=lambda member: (member.job.create_time, member.job.uid))


async def lock_jobs(tx: Transaction, job_uids: Sequence[str]) -> list[JobRow]:
    """The jobs in the order of their uids, locked, and before them the runs that they are in. Raises Contended when one of them
    was taken into a run at this very moment: the order of locks is runs first."""
    live = select(RunRow).where(RunRow.id.in_(_runs_of(job_uids)), RunRow.state.in_(WITH_JOBS)).order_by(RunRow.id)
    held = {run.id for run in await tx.session.scalars(tx.locked(live))}
    query = select(JobRow).where(JobRow.uid.in_(job_uids)).order_by(JobRow.uid)
    found = list(await tx.session.scalars(tx.locked(query)))
    now_in = await tx.session.scalars(select(RunRow.id).where(RunRow.id.in_(_runs_of(job_uids)), RunRow.state.in_(WITH_JOBS)))
    if not held.issuperset(now_in):
        raise Contended("a job was taken into a run at the same moment; try again")
    return found


def job_names(pack: Sequence[PackMember]) -> str:
    """The names of the pack's jobs, for the log."""
    return ",".join(member.job.name for member in pack)


async def live_with(tx: Transaction, job_uids: Sequence[str]) -> dict[RunRow, list[PackMember]]:
    """The runs that these jobs are in now, each with its whole pack. Lock them first, by `lock_jobs`, to change the runs."""
    query = select(RunRow, RunJobRow, JobRow).join(RunJobRow, RunJobRow.run_id == RunRow.id).join(JobRow)
    query = query.where(RunRow.id.in_(_runs_of(job_uids)), RunRow.state.in_(WITH_JOBS))
    found: dict[RunRow, list[PackMember]] = {}
    for run, place, job in await tx.session.execute(query.execution_options(populate_existing=not tx.reads_only)):
        found.setdefault(run, []).append(PackMember(place, job))
    return found


def _runs_of(job_uids: Sequence[str]) -> Select[str]:
    return select(RunJobRow.run_id).where(RunJobRow.job_uid.in_(job_uids))


async def num_live(tx: Transaction) -> int:
    """Number of slots in use: a run that is not gone holds one, together with the runs before and after it on its host."""
    return await tx.session.scalar(select(func.count(RunRow.host_id.distinct())).where(RunRow.state != RunState.GONE.value)) or 0


def mark_launched(tx: Transaction, run: RunRow) -> None:
    """The backend has the run, so its log can be copied from now on."""
    if run.state in COMING:
        run.state = RunState.LAUNCHED.value
        run.launch_time = tx.now
        run.due_at = tx.now
        tx.session.add(RunLogRow(run_id=run.id, due_at=tx.now))
        tx.changed = True


def stop_from(run: RunRow, at: datetime, reason: str, message: str) -> None:
    """Schedules a hard stop, unless an earlier one is scheduled."""
    if run.stop_at is None or at < run.stop_at:
        run.stop_at, run.stop_reason, run.stop_message = at, reason, storable(message)
