"""Reads the input of a round of admission: rows as values."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.control.admission import LiveRun, Situation
from service.control.capacity import NOTHING, Resources
from service.control.compatibility import StandbyKey, WarmKey
from service.control.lifecycle import Job, JobState
from service.control.packing import Candidate
from service.control.placing import AvailableCapacity, IdleHost, tenancy
from service.control.priority import PriorityClass, class_in_queue
from service.db import held_places, hosts, queue, quotas, row_faults, runs
from service.db.held_places import Held, HeldJob
from service.db.models import RunRow
from service.db.transaction import Transaction
from service.planning.planner import cluster_of
from service.reconcile.context import Tools
from service.runs.progress import progress_of

HEARD_WITHIN_S = 10.0  # warm workers that were silent for longer get no run


@dataclass(frozen=True)
class Seen:
    """The situation, the epoch that a decision on it is good for, and what tells whether another round is worth it."""

    situation: Situation
    epoch: int
    mark: object


async def look(tools: Tools, tx: Transaction, num_waiting: int) -> Seen:
    """The current situation."""
    held = await held_places.held(tx)
    idle = await _idle_hosts(tools, tx) if any(not place.with_jobs for place in held) else []
    limits = await quotas.of_all(tx)
    windows = await held_places.windows(tx)
    now_s = tx.now.timestamp()
    seen = Situation(
        now_s=now_s,
        capacity=tools.capacity,
        live=[
            _live_run_of(place, tx.now, tools.admission_policy.promote_after_s)
            for place in held
            if place.with_jobs or _is_silent(place, idle)
        ],
        available=_available(tools, held, idle),
        quotas=limits,
        windows=windows,
    )
    warm = tuple(host.run_id for host in idle)
    active = tuple((window.tenant, window.gpus, window.start_s <= now_s) for window in windows)
    settings = (tools.limits, tools.backend.hardware(), tools.admission_policy, id(tools.candidates), tools.candidates.num_late)
    mark = (*settings, num_waiting, await queue.newest(tx), _marks(held), warm, limits, active)
    return Seen(situation=seen, epoch=await queue.admission_epoch(tx), mark=mark)


def heard_since(now: datetime) -> datetime:
    return now - timedelta(seconds=HEARD_WITHIN_S)


def _marks(held: Sequence[Held]) -> object:
    def jobs(place: Held) -> object:
        return tuple(sorted((job.uid, job.state, job.outcome) for job in place.jobs))

    return tuple(
        (place.host_id, place.run_id, place.with_jobs, place.launched, place.stops, place.is_leaving, jobs(place)) for place in held
    )


async def _idle_hosts(tools: Tools, tx: Transaction) -> list[IdleHost]:
    idle = await hosts.idle(tx, heard_since(tx.now))
    if not idle:
        return []
    guests = defaultdict[str, list[Candidate]](list)
    unknown = set[str]()
    for host_id, job in await hosts.guests(tx, [run.host_id for run in idle]):
        with row_faults.own("admit", job.name) as trouble:
            guests[host_id].append(tools.candidates.of_row(job))
        if trouble:  # who may be with it cannot be told: its workers get no run, and leave in their time
            unknown.add(host_id)
    return [_host(run, guests[run.host_id]) for run in idle if run.host_id not in unknown]


def _host(run: RunRow, guests: Sequence[Candidate]) -> IdleHost:
    present = frozenset(tenancy(guest.tenant, guest.sharing) for guest in guests)
    return IdleHost(run_id=run.id, host_id=run.host_id, key=_key(run, guests), tenancy=present)


def _key(run: RunRow, guests: Sequence[Candidate]) -> WarmKey | StandbyKey:
    standby = runs.standby_of(run)
    if standby is not None and not guests:
        return StandbyKey(cluster=cluster_of(standby.cluster))
    return replace(guests[0].key.warm, store_credentials=run.store_credentials)


def _available(tools: Tools, held: Sequence[Held], idle: Sequence[IdleHost]) -> AvailableCapacity:
    free, leaving = tools.capacity, NOTHING
    for place in held:
        free = free.minus(_resources(place))
        if place.is_leaving:
            leaving = leaving.plus(_resources(place))
    return AvailableCapacity(free=free, leaving=leaving, idle=idle)


def _resources(place: Held) -> Resources:
    return Resources(place.gpus, place.cpus, 1)


def _is_silent(place: Held, idle: Sequence[IdleHost]) -> bool:
    """Idle workers that do not report: they keep their capacity and get no run."""
    return not place.is_leaving and all(host.host_id != place.host_id for host in idle)


def _live_run_of(place: Held, now: datetime, promote_after_s: float) -> LiveRun:
    """Of one whose rows cannot be read there remains that it holds its place."""
    with row_faults.own("admit", place.run_id):
        return _live_run(place, now, promote_after_s)
    return LiveRun(run_id=place.run_id, resources=_resources(place), started_s=now.timestamp())


def _live_run(place: Held, now: datetime, promote_after_s: float) -> LiveRun:
    going = [job for job in place.jobs if job.outcome is None]
    began = place.create_time or now
    classes = [class_in_queue(job.priority, (began - job.create_time).total_seconds(), promote_after_s) for job in going]
    return LiveRun(
        run_id=place.run_id,
        resources=_resources(place),
        jobs=held_places.by_tenant(place.jobs),
        started_s=began.timestamp(),
        ends_s=_ends_s(going, now),
        stops=place.with_jobs and (place.stops or all(job.state is JobState.STOPPING for job in going)),
        preempted=any(job.preempt_requested for job in going),
        may_stop=place.launched and bool(going) and all(job.is_preemptible for job in going),
        priority_class=max(classes, default=PriorityClass.LOW),
    )


def _ends_s(jobs: Sequence[HeldJob], now: datetime) -> float | None:
    """When the last of them ends, by their estimates and limits; None: unknown."""
    ends = [_end_of(job, now) for job in jobs]
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def _end_of(job: HeldJob, now: datetime) -> float | None:
    known: list[float] = []
    progress = progress_of(job.progress)
    if job.state is JobState.RUNNING and progress.remaining_s > 0:
        known.append(job.update_time.timestamp() + progress.remaining_s)
    limited = Job(state=job.state, max_run_time_s=job.max_run_time_s, run_time_s=job.run_time_s, run_start_time=job.run_start_time or now)
    if limited.deadline is not None:
        known.append(limited.deadline.timestamp())
    return min(known, default=None)
