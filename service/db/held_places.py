"""Reads what admission needs to know of the runs that hold places: a small row for each, and for each of their unfinished jobs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select

from lorafleet.contract.run_manifest import Standby
from service.control.capacity_profile import Window
from service.control.lifecycle import IN_A_RUN, JobState
from service.control.runs import WITH_JOBS, RunState
from service.db.models import JobRow, ReservationRow, RunJobRow, RunRow
from service.db.transaction import Transaction

_WITH_JOBS = {state.value for state in WITH_JOBS}
_PREEMPTIBLE = JobRow.spec["scheduling"]["preemptible"].as_boolean()


@dataclass(frozen=True)
class HeldJob:
    """An unfinished job of a run."""

    uid: str
    tenant: str
    state: JobState
    priority: int
    is_preemptible: bool
    outcome: str | None  # as far as the run has reported
    progress: bytes | None
    update_time: datetime
    max_run_time_s: float | None
    run_time_s: float
    run_start_time: datetime | None
    preempt_requested: bool
    create_time: datetime


@dataclass
class Held:
    """A place: a host with the run that its workers are in."""

    host_id: str
    run_id: str = ""
    gpus: float = 0.0
    cpus: float = 0.0
    create_time: datetime | None = None
    launched: bool = False
    stops: bool = False  # a hard stop is due
    with_jobs: bool = False  # else its workers are idle, or come up to stand by
    is_leaving: bool = False  # idle, and told to end
    jobs: list[HeldJob] = field(default_factory=list[HeldJob])


async def held(tx: Transaction) -> list[Held]:
    """All places that are held."""
    columns = (RunRow.id, RunRow.host_id, RunRow.state, RunRow.create_time, RunRow.stop_at, RunRow.standby)
    query = select(*columns).where(RunRow.state != RunState.GONE.value).order_by(RunRow.create_time, RunRow.id)
    places: dict[str, Held] = {}
    for run_id, host_id, state, create_time, stop_at, standby in await tx.session.execute(query):
        place = places.setdefault(host_id, Held(host_id=host_id))
        if standby is not None:
            cluster = Standby.model_validate(standby).cluster
            place.gpus, place.cpus = cluster.num_workers * cluster.gpus_per_worker, cluster.num_workers * cluster.cpus_per_worker
        if state in _WITH_JOBS and standby is None:
            place.run_id, place.with_jobs, place.create_time = run_id, True, create_time
            place.launched, place.stops, place.is_leaving = state == RunState.LAUNCHED.value, stop_at is not None, False
        elif not place.with_jobs:
            place.run_id, place.is_leaving = run_id, stop_at is not None
    await _fill_in(tx, places)
    return list(places.values())


async def windows(tx: Transaction) -> list[Window]:
    """Reservations that have not ended."""
    query = (
        select(ReservationRow).where(ReservationRow.end_time > tx.now).order_by(ReservationRow.start_time, ReservationRow.reservation_id)
    )
    return [
        Window(tenant=row.tenant, gpus=row.gpus, start_s=row.start_time.timestamp(), end_s=row.end_time.timestamp())
        for row in await tx.session.scalars(query)
    ]


async def _fill_in(tx: Transaction, places: dict[str, Held]) -> None:
    by_run = {place.run_id: place for place in places.values()}
    job = (JobRow.uid, JobRow.tenant, JobRow.state, JobRow.priority, _PREEMPTIBLE, RunJobRow.outcome, JobRow.progress, JobRow.update_time)
    time = (JobRow.max_run_time_s, JobRow.run_time_s, JobRow.run_start_time, JobRow.preempt_requested, JobRow.create_time)
    where = (RunJobRow.run_id, RunJobRow.attempt, JobRow.attempt, JobRow.gpus, JobRow.cpus)
    query = select(*where, *job, *time).join(JobRow, JobRow.uid == RunJobRow.job_uid).join(RunRow, RunRow.id == RunJobRow.run_id)
    for row in await tx.session.execute(query.where(RunRow.state != RunState.GONE.value)):
        run_id, attempt_there, attempt, gpus, cpus, uid, tenant, state, priority, preemptible, *rest = row
        if (place := by_run.get(run_id)) is None:
            continue
        place.gpus, place.cpus = gpus, cpus  # all styles of a process ask for the same workers
        if place.with_jobs and attempt_there == attempt and JobState(state) in IN_A_RUN:
            is_preemptible = True if preemptible is None else bool(preemptible)
            place.jobs.append(HeldJob(uid, tenant, JobState(state), priority, is_preemptible, *rest))


def by_tenant(jobs: Sequence[HeldJob]) -> dict[str, int]:
    """How many jobs each tenant has among these."""
    counts = defaultdict[str, int](int)
    for job in jobs:
        counts[job.tenant] += 1
    return dict(counts)
