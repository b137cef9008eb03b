"""Which queued jobs start now, and why the others wait: one round of admission, as a function of what there is.

Jobs come in the order of `fair_share`. A job that fits takes what it needs; one that does not gets a date, as far as ends are
known, and those behind it may only pass where they leave it that date (conservative back-fill). A job without a date, or that
has waited for too long, keeps whatever it needs as it comes free. Knows nothing of databases, clocks or Ray.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from service.control.capacity import Hardware, Resources, amount
from service.control.capacity_profile import CapacityProfile, Window
from service.control.fair_share import FairOrder
from service.control.packing import EXCEEDS_CAPACITY, Candidate, Pack
from service.control.placing import AvailableCapacity, Decision, Placement, Start
from service.control.preemption import Victim, victims
from service.control.priority import PriorityClass, class_of
from service.control.quotas import UNLIMITED, Budgets, Quota, Usage


class WaitReason(StrEnum):
    """Shown to the user as it stands."""

    NO_FREE_RUN = "NO_FREE_RUN"
    CLUSTER_FULL = "CLUSTER_FULL"
    TENANT_QUOTA = "TENANT_QUOTA"
    RESERVED = "RESERVED"
    PREEMPTING = "PREEMPTING"
    EXCEEDS_CAPACITY = EXCEEDS_CAPACITY
    READING_BASE = "READING_BASE"
    SPEC_UNREADABLE = "SPEC_UNREADABLE"
    ROW_ERROR = "ROW_ERROR"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What may run at once. Without a capacity only the number of runs limits."""

    max_running_runs: int
    capacity_gpus: float | None = None
    capacity_cpus: float | None = None

    @property
    def capacity(self) -> Resources:
        gpus = math.inf if self.capacity_gpus is None else self.capacity_gpus
        cpus = math.inf if self.capacity_cpus is None else self.capacity_cpus
        return Resources(gpus, cpus, self.max_running_runs)

    def of(self, hardware: Hardware | None) -> "Limits":
        """What is not set is as much as there is, where that is known and fixed."""
        if hardware is None:
            return self
        return replace(
            self,
            capacity_gpus=hardware.gpus if self.capacity_gpus is None else self.capacity_gpus,
            capacity_cpus=hardware.cpus if self.capacity_cpus is None else self.capacity_cpus,
        )


@dataclass(frozen=True, kw_only=True)
class AdmissionPolicy:
    """How long jobs are passed by, and what is assumed where nothing is known."""

    block_after_s: float = 1800.0  # a job without a date keeps what it needs from then on; one with a date from twice that on
    promote_after_s: float = 6 * 3600.0  # in the queue, it then counts as one class higher
    num_dates: int = 8  # waiting jobs that get a projected start which others may not delay
    unknown_lasts_s: float = 4 * 3600.0  # taken for the length of a job without max_run_time_s, before a reserved window
    makes_room_in_s: float = 120.0  # a preempted run is gone by then
    preempts_from: PriorityClass | None = PriorityClass.HIGH  # classes below preempt nothing: low jobs would never finish
    look_ahead: int | None = None  # waiting jobs that are looked at; None: all, each with its place and its reason


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """A run that holds its place. `jobs` counts its unfinished ones by tenant."""

    run_id: str
    resources: Resources
    jobs: Mapping[str, int] = field(default_factory=dict[str, int])
    started_s: float = 0.0
    ends_s: float | None = None  # None: unknown
    stops: bool = False  # every job in it was asked to stop
    preempted: bool = False  # it stops for a job of a higher class
    may_stop: bool = False  # every job in it may be preempted, and it has begun
    # The highest in it, each as it queued when the run began. A job that had waited into a class and was then pushed aside by
    # that class would be the first to start again, and be pushed aside again: it would never get on.
    priority_class: PriorityClass = PriorityClass.HIGH


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What there is at one moment."""

    now_s: float
    capacity: Resources
    live: Sequence[LiveRun] = ()
    available: AvailableCapacity
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    windows: Sequence[Window] = ()


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a job waits. Its numbers are limits, which rarely change, so that a start does not update the whole queue."""

    reason: str  # a WaitReason, or what the operators must mend
    message: str


@dataclass(frozen=True, kw_only=True)
class Preempt:
    """Stop this run after a checkpoint: `uid`, of a higher class, needs its place."""

    run_id: str
    uid: str
    priority_class: PriorityClass


@dataclass(kw_only=True)
class Decided:
    """The result of one round. `waiting` is in the expected order of starts."""

    decisions: list[Decision] = field(default_factory=list[Decision])
    preemptions: list[Preempt] = field(default_factory=list[Preempt])
    waiting: list[str] = field(default_factory=list[str])
    waits: dict[str, Wait] = field(default_factory=dict[str, Wait])

    def add_waits(self, waits: Mapping[str, Wait]) -> None:
        """Jobs that wait for something of their own, and were in no round: behind the others, whose places they do not change."""
        self.waiting += waits
        self.waits |= waits

    @property
    def starts(self) -> list[Start]:
        return [decision for decision in self.decisions if isinstance(decision, Start)]


class Packing(Protocol):
    """Forms packs of the jobs that wait: `packing.Packer`, or what a simulation knows of them."""

    def __contains__(self, uid: str, /) -> bool: ...

    def set_aside(self, job: Candidate) -> None: ...

    def pack(self, leader: Candidate, *, spread: int, budgets: Budgets | None = None, most_s: float = math.inf) -> Pack: ...


def decide(queue: Sequence[Candidate], packer: Packing, situation: Situation, policy: AdmissionPolicy) -> Decided:
    """One round. `packer` holds the jobs of `queue`."""
    shares = shares_of(situation)
    budgets = Budgets(quotas=situation.quotas, usage=usage_of(situation.live))
    order = FairOrder(
        queue, shares, lambda tenant: budgets.of(tenant).weight, now_s=situation.now_s, promote_after_s=policy.promote_after_s
    )
    return _Round(packer, situation, policy, budgets, order).decide()


def usage_of(live: Sequence[LiveRun]) -> dict[str, Usage]:
    """What tenants have in runs, as quotas count it."""
    usage = defaultdict[str, Usage](Usage)
    for run in live:
        for tenant, num_jobs in run.jobs.items():
            usage[tenant].running_jobs += num_jobs
            usage[tenant].gpus += run.resources.gpus
    return dict(usage)


def shares_of(situation: Situation) -> dict[str, float]:
    """Weighted dominant shares. A run that tenants share counts for each by its part of the jobs."""
    used = defaultdict[str, float](float)
    for run in situation.live:
        num_jobs = sum(run.jobs.values())
        for tenant, num in run.jobs.items():
            weight = situation.quotas.get(tenant, UNLIMITED).weight
            used[tenant] += run.resources.dominant_share(situation.capacity) * num / num_jobs / max(weight, 1e-6)
    return dict(used)


class _Round:
    """The books of one round."""

    def __init__(self, packer: Packing, situation: Situation, policy: AdmissionPolicy, budgets: Budgets, order: FairOrder) -> None:
        self._packer, self._now, self._policy = packer, situation, policy
        self._budgets, self._order = budgets, order
        self._placement = Placement(situation.available)
        self._free = situation.available.in_reach  # whatever it is kept for
        self._soon_s = situation.now_s + policy.makes_room_in_s
        self._profile = CapacityProfile(situation.now_s, self._free, self._ends(), [_copy(window) for window in situation.windows])
        for tenant, used in budgets.usage.items():
            self._profile.use_window(tenant, used.gpus)
        self._victims = [_victim(run) for run in situation.live if run.may_stop and self._end_s(run) > self._soon_s]
        self._stuck: dict[tuple[Resources, str], float] = {}  # what did not fit, and for how long: nothing that asks for more will
        self._num_dated = 0
        self._told: dict[tuple[WaitReason, Resources, str], Wait] = {}
        self.decided = Decided()

    def decide(self) -> Decided:
        for job in self._order.jobs(lambda uid: uid in self._packer):
            self._take(job)
            look_ahead = self._policy.look_ahead
            if look_ahead is not None and (len(self.decided.waiting) >= look_ahead or self._free.runs < 1):
                break
        return self.decided

    def _take(self, job: Candidate) -> None:
        demand = job.demand
        if not demand.fits(self._now.capacity):
            self._wait([job], WaitReason.EXCEEDS_CAPACITY, demand)
        elif refusal := self._budgets.refusal(job.tenant, demand.gpus):
            self._wait([job], WaitReason.TENANT_QUOTA, demand, job.tenant, refusal)
        elif self._fits_now(job):
            self._start(job)
        else:
            self._order.charge(job.tenant, demand.dominant_share(self._now.capacity))
            self._wait([job], self._date(job), demand)

    def _fits_now(self, job: Candidate) -> bool:
        what = (job.demand, job.tenant if self._profile.windows else "")
        known_s = self._stuck.get(what)
        if known_s is not None and known_s <= job.lasts_s:
            return False
        if self._profile.fits(job.demand, job.tenant, self._now.now_s, job.lasts_s, self._policy.unknown_lasts_s):
            return True
        self._stuck[what] = job.lasts_s
        return False

    def _start(self, job: Candidate) -> None:
        pack = self._packer.pack(job, spread=job.demand.times_in(self._free), budgets=self._budgets, most_s=self._most_s(job))
        placed = self._placement.place(pack)
        self.decided.decisions += placed
        self._free = self._free.minus(pack.demand)
        self._profile.take(pack.demand, self._now.now_s, max(member.lasts_s for member in pack.members))
        self._enter(pack)
        if not any(isinstance(decision, Start) for decision in placed):
            self._wait(pack.members, WaitReason.NO_FREE_RUN, pack.demand)  # warm workers leave for it

    def _most_s(self, job: Candidate) -> float:
        """How long its companions may take: where it passes others only because it is short, no longer than it."""
        fits_for_ever = self._profile.fits(job.demand, job.tenant, self._now.now_s, math.inf, self._policy.unknown_lasts_s)
        return math.inf if fits_for_ever else job.lasts_s

    def _enter(self, pack: Pack) -> None:
        share = pack.demand.dominant_share(self._now.capacity) / len(pack.members)
        inside = set[str]()
        for member in pack.members:
            self._order.charge(member.tenant, share)
            self._budgets.enter(member.tenant, pack.demand.gpus, is_in_it=member.tenant in inside)
            inside.add(member.tenant)
        self._profile.use_window(pack.members[0].tenant, pack.demand.gpus)

    def _date(self, job: Candidate) -> WaitReason:
        """Why it waits. While dates are given away it gets one, and room is made for it where its class allows."""
        demand = job.demand
        if self._num_dated == self._policy.num_dates:
            return self._why(demand)
        self._num_dated += 1
        makes_room = self._preempt(job) or self._room_is_made(job)
        waited_s = self._now.now_s - job.submitted_s
        date_s = self._profile.earliest_s(demand, job.tenant, job.lasts_s, self._policy.unknown_lasts_s)
        reason = WaitReason.PREEMPTING if makes_room else self._why(demand)
        if waited_s >= self._policy.block_after_s * (1 if date_s is None else 2):
            self._profile.hold(demand)
        elif date_s is not None:
            self._profile.take(demand, date_s, job.lasts_s)
        return reason

    def _preempt(self, job: Candidate) -> bool:
        """Whether runs of lower classes make room for it now."""
        room = self._profile.free_at(self._soon_s, job.tenant)
        if not self._takes_places(job) or job.demand.fits(room):
            return False
        chosen = victims(job.demand, room, self._victims, below=class_of(job.priority))
        for victim in chosen:
            self._victims.remove(victim)
            self._profile.give_back(victim.resources, self._soon_s, victim.ends_s)
            self.decided.preemptions.append(Preempt(run_id=victim.run_id, uid=job.uid, priority_class=class_of(job.priority)))
        return bool(chosen)

    def _room_is_made(self, job: Candidate) -> bool:
        """Whether it will fit once the runs that were preempted are gone."""
        if not self._takes_places(job) or not any(run.preempted for run in self._now.live):
            return False
        return job.demand.fits(self._profile.free_at(self._soon_s, job.tenant))

    def _takes_places(self, job: Candidate) -> bool:
        lowest = self._policy.preempts_from
        return lowest is not None and class_of(job.priority) >= lowest

    def _why(self, demand: Resources) -> WaitReason:
        if demand.fits(self._free):
            return WaitReason.RESERVED
        return WaitReason.NO_FREE_RUN if self._free.runs < 1 else WaitReason.CLUSTER_FULL

    def _wait(self, jobs: Sequence[Candidate], reason: WaitReason, demand: Resources, tenant: str = "", message: str = "") -> None:
        wait = self._told.get((reason, demand, tenant))
        if wait is None:
            wait = Wait(reason=reason, message=message or _message(reason, demand, self._now.capacity))
            self._told[reason, demand, tenant] = wait
        for job in jobs:
            if job.uid in self._packer and self._free.runs >= 1:
                self._packer.set_aside(job)
            self.decided.waiting.append(job.uid)
            self.decided.waits[job.uid] = wait

    def _ends(self) -> list[tuple[float, Resources]]:
        """Runs that are going, and those whose end is known."""
        ends = [(self._end_s(run), run.resources) for run in self._now.live]
        return [(end_s, resources) for end_s, resources in ends if end_s < math.inf]

    def _end_s(self, run: LiveRun) -> float:
        """What is overdue ends soon; infinite: unknown. Nobody is stopped for a place that is free by then anyway."""
        if run.stops:
            return self._soon_s
        return math.inf if run.ends_s is None else max(run.ends_s, self._soon_s)


def _message(reason: WaitReason, demand: Resources, capacity: Resources) -> str:
    needs, whole = amount(demand.gpus, demand.cpus), amount(capacity.gpus, capacity.cpus)
    match reason:
        case WaitReason.NO_FREE_RUN:
            num = f"{capacity.runs:.0f} of {capacity.runs:.0f}"
            return f"waits for a free run: {num} at work (limit max_running_runs)"
        case WaitReason.CLUSTER_FULL:
            return f"needs {needs} at once: more than is free of {whole}"
        case WaitReason.RESERVED:
            return f"needs {needs} at once: what is free is kept for jobs that come before it, or reserved"
        case WaitReason.PREEMPTING:
            return f"needs {needs} at once: jobs of lower classes save checkpoints to make room"
        case _:
            limit = whole if demand.gpus > capacity.gpus or demand.cpus > capacity.cpus else f"{capacity.runs:.0f} runs"
            return f"needs {needs} at once and there are {limit} in all: it waits until there is more; or ask for fewer workers"


def _victim(run: LiveRun) -> Victim:
    return Victim(
        run_id=run.run_id,
        resources=run.resources,
        priority_class=run.priority_class,
        started_s=run.started_s,
        ends_s=math.inf if run.ends_s is None else run.ends_s,
    )


def _copy(window: Window) -> Window:
    return Window(tenant=window.tenant, gpus=window.gpus, start_s=window.start_s, end_s=window.end_s)
