"""Simulates discrete events: jobs come and end by the trace, rounds of admission decide in between. No wall clock, no chance."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from service.control.admission import AdmissionPolicy, Decided, LiveRun, Situation, decide
from service.control.capacity import Resources
from service.control.compatibility import Cluster, PackKey, WarmKey
from service.control.packing import Candidate, ClosedBy, Pack, Sharing
from service.control.placing import AvailableCapacity, Start
from service.control.priority import class_in_queue
from service.control.quotas import Budgets, Quota
from service.simulate.fairness import max_min
from service.simulate.trace import TraceJob

ROUND_S = 60.0  # rounds are held no more often than that
AGAIN_S = 600.0  # and at least that often while jobs wait
PROMOTE_AFTER_S = AdmissionPolicy().promote_after_s
CHECKPOINT_S = 30.0  # from a preemption until its GPUs are free
RESUME_S = 60.0  # what an attempt after a preemption takes longer

Decide = Callable[["Queue", Situation], Decided]


@dataclass(frozen=True, kw_only=True)
class World:
    """What the load meets."""

    capacity: Resources
    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])


@dataclass
class Life:
    """What has become of a job."""

    job: TraceJob
    candidate: Candidate
    remaining_s: float
    first_start_s: float | None = None
    end_s: float | None = None
    num_preemptions: int = 0
    is_preempted: bool = False  # it stops, and will be queued again
    attempt: int = 0
    started_s: float = 0.0
    run: LiveRun | None = None


@dataclass
class SimulationResult:
    """All lives, and what the cluster did meanwhile."""

    lives: list[Life]
    capacity: Resources
    gpu_seconds: float = 0.0  # at work until the last job came
    span_s: float = 0.0
    num_rounds: int = 0
    most_waiting: int = 0
    held: dict[str, float] = field(default_factory=dict[str, float])  # GPU-seconds by tenant, while it had jobs waiting
    entitled: dict[str, float] = field(default_factory=dict[str, float])  # what max-min fairness would have given it meanwhile


class Queue:
    """Waiting jobs, each a pack of its own: what they train, and with whom, a trace does not say."""

    def __init__(self, jobs: Mapping[str, Candidate]) -> None:
        self.jobs = dict(jobs)

    def __contains__(self, uid: str) -> bool:
        return uid in self.jobs

    def set_aside(self, job: Candidate) -> None:
        self.jobs.pop(job.uid, None)

    def pack(self, leader: Candidate, *, spread: int, budgets: Budgets | None = None, most_s: float = math.inf) -> Pack:
        _ = spread, budgets, most_s  # of companions, which it has none of
        self.set_aside(leader)
        return Pack(members=(leader,), closed_by=ClosedBy.SHARING)


def by_admission(policy: AdmissionPolicy) -> Decide:
    """As the service decides."""
    return lambda queue, situation: decide(list(queue.jobs.values()), queue, situation, policy)


def by_fifo(queue: Queue, situation: Situation) -> Decided:
    """First come, first served: what does not fit keeps all others waiting. The yardstick."""
    decided, free = Decided(), situation.available.free
    for job in sorted(queue.jobs.values(), key=lambda job: job.order):
        if job.demand.fits(situation.capacity):
            if not job.demand.fits(free):
                break
            free = free.minus(job.demand)
            decided.decisions.append(Start(pack=queue.pack(job, spread=1), host=None))
    return decided


def simulate(jobs: Sequence[TraceJob], world: World, decide_now: Decide) -> SimulationResult:
    """The lives of all jobs, which are in the order of their submission, until the last has ended."""
    return _Simulation(jobs, world, decide_now).run()


class _Simulation:
    def __init__(self, jobs: Sequence[TraceJob], world: World, decide_now: Decide) -> None:
        self._world, self._decide = world, decide_now
        clusters: dict[tuple[float, float], PackKey] = {}
        self._lives = [Life(job, _candidate(job, order, clusters), job.duration_s) for order, job in enumerate(jobs)]
        self._by_uid = {life.job.uid: life for life in self._lives}
        self._coming = 0  # of the lives, the next to come
        self._ends: list[tuple[float, int, str]] = []  # (time, attempt, uid)
        self._waiting: dict[str, Candidate] = {}
        self._running: dict[str, Life] = {}
        self._free = world.capacity
        self._used_gpus: dict[str, float] = {}
        self._waiting_gpus: dict[str, float] = {}
        self._entitled: dict[str, float] = {}  # GPUs, of the tenants that have jobs waiting, as of the last round
        self._last_submit_s = jobs[-1].submit_s
        self._now_s = jobs[0].submit_s
        self._dirty = False
        self.outcome = SimulationResult(self._lives, world.capacity, span_s=self._last_submit_s - self._now_s)

    def run(self) -> SimulationResult:
        next_round_s = again_s = self._now_s
        while (event_s := self._next_event_s()) is not None or self._waiting:
            due_s = next_round_s if self._dirty else again_s
            if self._waiting and (event_s is None or due_s <= event_s):
                self._pass_to(max(due_s, self._now_s))
                if not self._round() and event_s is None:
                    break  # nothing will ever change: these fit no cluster of this size, or no quota
                next_round_s, again_s = self._now_s + ROUND_S, self._now_s + AGAIN_S
            elif event_s is not None:
                self._pass_to(event_s)
                self._happen()
        return self.outcome

    def _next_event_s(self) -> float | None:
        known = [self._ends[0][0]] if self._ends else []
        if self._coming < len(self._lives):
            known.append(self._lives[self._coming].job.submit_s)
        return min(known, default=None)

    def _happen(self) -> None:
        self._dirty = True
        if self._ends and self._ends[0][0] <= self._now_s:
            _, attempt, uid = heappop(self._ends)
            if (life := self._running.get(uid)) is not None and life.attempt == attempt:
                self._leave(life)
        else:
            life = self._lives[self._coming]
            self._coming += 1
            self._wait(life)

    def _pass_to(self, time_s: float) -> None:
        """Time goes by: who holds what meanwhile is summed up."""
        passed_s = time_s - self._now_s
        if passed_s > 0:
            counted_s = max(0.0, min(time_s, self._last_submit_s) - self._now_s)
            self.outcome.gpu_seconds += counted_s * sum(self._used_gpus.values())
            held, entitled = self.outcome.held, self.outcome.entitled
            for tenant, part in self._entitled.items():
                held[tenant] = held.get(tenant, 0.0) + passed_s * self._used_gpus.get(tenant, 0.0)
                entitled[tenant] = entitled.get(tenant, 0.0) + passed_s * part
        self._now_s = time_s

    def _round(self) -> bool:
        situation = Situation(
            now_s=self._now_s,
            capacity=self._world.capacity,
            live=[life.run for life in self._running.values() if life.run is not None],
            available=AvailableCapacity(free=self._free),
            quotas=self._world.quotas,
        )
        self.outcome.num_rounds += 1
        self.outcome.most_waiting = max(self.outcome.most_waiting, len(self._waiting))
        decided = self._decide(Queue(self._waiting), situation)
        for start in decided.starts:
            for member in start.pack.members:
                self._start(self._by_uid[member.uid])
        for preemption in decided.preemptions:
            self._preempt(self._by_uid[preemption.run_id])
        self._dirty = False
        self._entitled = self._fair_parts()
        return bool(decided.starts or decided.preemptions)

    def _fair_parts(self) -> dict[str, float]:
        weights = {tenant: quota.weight for tenant, quota in self._world.quotas.items()}
        tenants = {*self._used_gpus, *self._waiting_gpus}
        demands = {tenant: self._used_gpus.get(tenant, 0.0) + self._waiting_gpus.get(tenant, 0.0) for tenant in tenants}
        parts = max_min(self._world.capacity.gpus, demands, weights)
        return {tenant: part for tenant, part in parts.items() if self._waiting_gpus.get(tenant, 0.0) > 0}

    def _wait(self, life: Life) -> None:
        self._waiting[life.job.uid] = life.candidate
        self._waiting_gpus[life.job.tenant] = self._waiting_gpus.get(life.job.tenant, 0.0) + life.job.gpus

    def _start(self, life: Life) -> None:
        job = life.job
        del self._waiting[job.uid]
        self._waiting_gpus[job.tenant] -= job.gpus
        life.attempt += 1
        life.started_s = self._now_s
        life.first_start_s = self._now_s if life.first_start_s is None else life.first_start_s
        end_s = self._now_s + life.remaining_s
        life.run = LiveRun(
            run_id=job.uid,
            resources=life.candidate.demand,
            jobs={job.tenant: 1},
            started_s=self._now_s,
            ends_s=end_s,  # a run that trains reports how long it will yet take
            may_stop=job.preemptible,
            priority_class=class_in_queue(job.priority, self._now_s - job.submit_s, PROMOTE_AFTER_S),
        )
        self._running[job.uid] = life
        self._free = self._free.minus(life.candidate.demand)
        self._used_gpus[job.tenant] = self._used_gpus.get(job.tenant, 0.0) + job.gpus
        heappush(self._ends, (end_s, life.attempt, job.uid))

    def _preempt(self, life: Life) -> None:
        """It saves its work and is queued again, unless it ends before."""
        assert life.run is not None  # noqa: S101 (it runs)
        gone_s = self._now_s + CHECKPOINT_S
        life.run = replace(life.run, stops=True)
        if life.started_s + life.remaining_s <= gone_s:
            return
        life.remaining_s += RESUME_S - (self._now_s - life.started_s)
        life.is_preempted = True
        life.num_preemptions += 1
        life.attempt += 1  # the end that was expected is no end now
        heappush(self._ends, (gone_s, life.attempt, life.job.uid))

    def _leave(self, life: Life) -> None:
        job = life.job
        del self._running[job.uid]
        self._free = self._free.plus(life.candidate.demand)
        self._used_gpus[job.tenant] -= job.gpus
        life.run = None
        if life.is_preempted:
            life.is_preempted = False
            self._wait(life)
        else:
            life.end_s = self._now_s


def _candidate(job: TraceJob, order: int, clusters: dict[tuple[float, float], PackKey]) -> Candidate:
    size = (job.gpus, job.cpus)
    if size not in clusters:
        workers = Cluster(
            num_workers=1, cpus_per_worker=job.cpus, gpus_per_worker=job.gpus, memory_gib_per_worker=None, zero_stage=0, offload="none"
        )
        warm = WarmKey(base_uri="", family="", precision="", cluster=workers)
        clusters[size] = PackKey(warm=warm, resolution=None, bucketing=False, accumulation_steps=1)
    return Candidate(
        uid=job.uid,
        tenant=job.tenant,
        key=clusters[size],
        sharing=Sharing.NOBODY,
        max_steps=1,
        footprint=None,
        priority=job.priority,
        order=order,
        submitted_s=job.submit_s,
        lasts_s=job.max_run_time_s,
        preemptible=job.preemptible,
    )
