"""Which queued jobs train together in one run. Knows nothing of databases, clocks or Ray.

A pack is led by the job that has waited longest in the highest priority, and filled with the compatible jobs whose
number of steps is nearest to its own: a pack is as long as its longest member. As every pack takes the first job of
the queue, a job never waits for more packs than there are jobs before it.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from service.control.capacity import Hardware, Resources, beyond
from service.control.compatibility import PackKey
from service.control.memory import GIB, Footprint, arithmetic, gib, pack_bytes
from service.control.quotas import Budgets

PACK_TOO_LARGE = "PACK_TOO_LARGE"  # why a job that fits no worker has failed
EXCEEDS_CAPACITY = "EXCEEDS_CAPACITY"  # or whose workers do not fit the hardware


class Sharing(StrEnum):
    """Whose jobs may be in the same run."""

    ANYONE = "anyone"
    TENANT = "tenant"
    NOBODY = "nobody"


class ClosedBy(StrEnum):
    """Why a pack holds no more."""

    FULL = "FULL"
    MEMORY = "MEMORY"
    SHARING = "SHARING"
    NO_MORE_ITEMS = "NO_MORE_ITEMS"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A queued job. `order` is its place in the queue by age: 0 is the oldest."""

    uid: str
    tenant: str
    key: PackKey
    sharing: Sharing
    max_steps: int
    footprint: Footprint | None  # None: the base's shapes are not known
    priority: int = 0
    order: int = 0
    alone: str = ""  # why it trains alone, for people; empty: it need not
    submitted_s: float = 0.0  # seconds since the epoch
    lasts_s: float = math.inf  # at most, as far as is known
    preemptible: bool = True

    @property
    def demand(self) -> Resources:
        """What a run of it takes."""
        return self.key.warm.cluster.resources

    @property
    def rank(self) -> tuple[int, int, str]:
        """Sorts by priority, then age."""
        return (-self.priority, self.order, self.uid)


@dataclass(frozen=True, kw_only=True)
class PackLimits:
    """How much goes into one pack."""

    max_pack_size: int = 16
    worker_memory_bytes: int | None = None  # None: what the spec reserves, else no limit


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Jobs that train together; the first leads."""

    members: tuple[Candidate, ...]
    closed_by: ClosedBy

    @property
    def key(self) -> PackKey:
        return self.members[0].key

    @property
    def demand(self) -> Resources:
        """What its run takes, however many styles train in it."""
        return self.members[0].demand

    @property
    def footprints(self) -> list[Footprint] | None:
        """None when one of them is not known."""
        found = [member.footprint for member in self.members if member.footprint is not None]
        return found if len(found) == len(self.members) else None

    @property
    def memory_bytes(self) -> int:
        """0 when it is not known."""
        return pack_bytes(self.footprints) if self.footprints else 0

    @property
    def arithmetic(self) -> str:
        if self.footprints:
            return arithmetic(self.footprints)
        return "unknown: the base model's headers could not be read; only the number of styles is limited"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A job that no run could ever take, and why."""

    uid: str
    message: str
    reason: str = PACK_TOO_LARGE


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Packs in the order in which they start."""

    packs: tuple[Pack, ...]
    refusals: tuple[Refusal, ...]


def plan(queue: Sequence[Candidate], limits: PackLimits, num_free_runs: int) -> Plan:
    """Every job of the queue in one pack, or refused."""
    fitting, refusals = sift(queue, limits)
    return Plan(packs=tuple(packs(fitting, limits, num_free_runs)), refusals=tuple(refusals))


def sift(queue: Sequence[Candidate], limits: PackLimits, hardware: Hardware | None = None) -> tuple[list[Candidate], list[Refusal]]:
    """The jobs that fit a worker alone, and workers that fit the hardware; and those that do not."""
    refusals = [refusal for job in queue if (refusal := _beyond(job, hardware) or _refusal(job, limits)) is not None]
    refused = {refusal.uid for refusal in refusals}
    return [job for job in queue if job.uid not in refused], refusals


def packs(fitting: Sequence[Candidate], limits: PackLimits, num_free_runs: int) -> Iterator[Pack]:
    """Packs in the order in which they start, formed as they are asked for.

    Compatible jobs are spread over the runs that are free now; packs that must wait for a run are filled up.
    """
    packer = Packer(fitting, limits)
    num_formed = 0
    for leader in sorted(fitting, key=lambda job: job.rank):
        if leader.uid in packer:
            yield packer.pack(leader, spread=num_free_runs - num_formed)
            num_formed += 1


class Packer:
    """Forms packs of the jobs that are in none yet."""

    def __init__(self, fitting: Sequence[Candidate], limits: PackLimits) -> None:
        self._shelves = _Shelves(fitting)
        self._limits = limits

    def __contains__(self, uid: str) -> bool:
        return uid in self._shelves

    def set_aside(self, job: Candidate) -> None:
        """The job waits: no pack may take it in this round."""
        self._shelves.remove(job)

    def pack(self, leader: Candidate, *, spread: int, budgets: Budgets | None = None, most_s: float = math.inf) -> Pack:
        """A pack that `leader` leads, of jobs that last for `most_s` at most. Compatible jobs are spread over `spread` runs."""
        most = min(self._limits.max_pack_size, -(-self._shelves.num_for(leader) // max(1, spread)))
        room = _PackHeadroom(leader, memory_limit_bytes(leader.key, self._limits), budgets, most_s)
        return _filled(leader, self._shelves, self._limits, most, room)


def memory_limit_bytes(key: PackKey, limits: PackLimits) -> int | None:
    """Bytes that a pack may take on one worker: the least of what the server allows and what the spec reserves."""
    reserved = key.warm.cluster.memory_gib_per_worker
    known = [limits.worker_memory_bytes, None if reserved is None else int(reserved * GIB)]
    return min((limit for limit in known if limit is not None), default=None)


def may_share(members: Sequence[tuple[str, Sharing]]) -> bool:
    """Whether jobs of these tenants and wishes may be in one process: of one tenant, or all open to anyone."""
    return len({tenant for tenant, _ in members}) <= 1 or all(sharing is Sharing.ANYONE for _, sharing in members)


def fits(members: Sequence[Candidate], limits: PackLimits) -> bool:
    """Whether they fit one worker's memory together, as far as is known."""
    limit = memory_limit_bytes(members[0].key, limits)
    known = [member.footprint for member in members if member.footprint is not None]
    return limit is None or not known or pack_bytes(known) <= limit


def _beyond(job: Candidate, hardware: Hardware | None) -> Refusal | None:
    message = beyond(job.key.warm.cluster, hardware) if hardware is not None else ""
    return Refusal(uid=job.uid, message=message, reason=EXCEEDS_CAPACITY) if message else None


def _refusal(job: Candidate, limits: PackLimits) -> Refusal | None:
    if job.footprint is None or fits([job], limits):
        return None
    limit = memory_limit_bytes(job.key, limits) or 0
    message = f"does not fit a worker even alone: {arithmetic([job.footprint])}, but a worker has {gib(limit)}"
    recomputed = "" if job.key.recomputes else "training.gradient_checkpointing, or "
    return Refusal(uid=job.uid, message=f"{message}; {recomputed}a smaller micro_batch_size, resolution or rank takes less")


def _filled(leader: Candidate, shelves: "_Shelves", limits: PackLimits, most: int, room: "_PackHeadroom") -> Pack:
    """The leader with the nearest that fit. Too large ones are passed over, a pack's number of them at most."""
    members = [leader]
    num_passed = 0
    shelves.remove(leader)
    for job in () if most == 1 else shelves.near(leader):
        if not room.allows(job):
            continue
        if room.takes(job):
            members.append(job)
        else:
            num_passed += 1
        if len(members) == most or num_passed > limits.max_pack_size:
            break
    for job in members[1:]:
        shelves.remove(job)
    return Pack(members=tuple(members), closed_by=_closed_by(leader, shelves, len(members) == limits.max_pack_size, num_passed))


def _closed_by(leader: Candidate, shelves: "_Shelves", is_full: bool, num_passed: int) -> ClosedBy:
    if leader.sharing is Sharing.NOBODY:
        return ClosedBy.SHARING
    if num_passed:
        return ClosedBy.MEMORY
    if not shelves.num_left(leader.key):
        return ClosedBy.NO_MORE_ITEMS
    return ClosedBy.FULL if is_full or leader.alone or shelves.num_for(leader) else ClosedBy.SHARING


class _PackHeadroom:
    """What a pack that is being filled still takes: by memory, by its members' quotas, by time."""

    def __init__(self, leader: Candidate, limit_bytes: int | None, budgets: Budgets | None, most_s: float) -> None:
        self._limit = limit_bytes
        self._known = [leader.footprint] if leader.footprint is not None else []  # of its members
        self._gpus = leader.demand.gpus
        self._budgets, self._most_s = budgets, most_s
        self._num_of: dict[str, int] = {leader.tenant: 1}

    def allows(self, job: Candidate) -> bool:
        """By quotas and time."""
        if job.lasts_s > self._most_s:
            return False
        inside = self._num_of.get(job.tenant, 0)
        return self._budgets is None or self._budgets.may_enter(job.tenant, self._gpus, num_inside=inside)

    def takes(self, job: Candidate) -> bool:
        known = self._known if job.footprint is None else [*self._known, job.footprint]
        if self._limit is not None and known and pack_bytes(known) > self._limit:
            return False
        self._known = known
        self._num_of[job.tenant] = self._num_of.get(job.tenant, 0) + 1
        return True


_Place = tuple[int, int, str]  # (max_steps, order, uid)


@dataclass
class _Shelf:
    """Jobs that may be together, by priority and there by number of steps. Taking one out of n moves n pointers: nothing."""

    by_priority: dict[int, list[_Place]] = field(default_factory=lambda: defaultdict[int, list[_Place]](list))

    def remove(self, job: Candidate) -> None:
        places = self.by_priority[job.priority]
        del places[bisect_left(places, _place(job))]
        if not places:
            del self.by_priority[job.priority]

    def near(self, leader: Candidate) -> Iterator[str]:
        """The highest priority first; within one, the nearest in steps."""
        for priority in sorted(self.by_priority, reverse=True):
            yield from _outwards(self.by_priority[priority], _place(leader))

    def __len__(self) -> int:
        return sum(len(places) for places in self.by_priority.values())


class _Shelves:
    """All jobs that are in no pack yet, by whose company they may keep."""

    def __init__(self, jobs: Sequence[Candidate]) -> None:
        self._jobs = {job.uid: job for job in jobs}
        self._shelves = defaultdict[tuple[PackKey, str | None], _Shelf](_Shelf)
        self._num_left = defaultdict[PackKey, int](int)
        for job in sorted(jobs, key=_place):
            self._num_left[job.key] += 1
            for shelf in _shelves_of(job):
                self._shelves[shelf].by_priority[job.priority].append(_place(job))

    def __contains__(self, uid: str) -> bool:
        return uid in self._jobs

    def remove(self, job: Candidate) -> None:
        del self._jobs[job.uid]
        self._num_left[job.key] -= 1
        for shelf in _shelves_of(job):
            self._shelves[shelf].remove(job)

    def near(self, leader: Candidate) -> Iterator[Candidate]:
        """The jobs that may share a pack with `leader`, the closest first. Remove none while iterating."""
        return (self._jobs[uid] for uid in self._shelves[_led_by(leader)].near(leader))

    def num_for(self, leader: Candidate) -> int:
        """How many jobs may be in a pack with `leader`, itself included."""
        return 1 if _trains_alone(leader) else len(self._shelves[_led_by(leader)])

    def num_left(self, key: PackKey) -> int:
        return self._num_left[key]


def _trains_alone(job: Candidate) -> bool:
    return bool(job.alone) or job.sharing is Sharing.NOBODY


def _shelves_of(job: Candidate) -> list[tuple[PackKey, str | None]]:
    """Where companions are looked for: among its tenant's jobs, and among everybody's (None) when it is open to anyone."""
    if _trains_alone(job):
        return []
    own: list[tuple[PackKey, str | None]] = [(job.key, job.tenant)]
    return [*own, (job.key, None)] if job.sharing is Sharing.ANYONE else own


def _led_by(leader: Candidate) -> tuple[PackKey, str | None]:
    return (leader.key, None if leader.sharing is Sharing.ANYONE else leader.tenant)


def _place(job: Candidate) -> _Place:
    return (job.max_steps, job.order, job.uid)


def _outwards(places: list[_Place], start: _Place) -> Iterator[str]:
    """Uids by their distance in steps from `start`, the nearest first; of two as near, the one with more steps."""
    right = bisect_left(places, start)
    left = right - 1
    while left >= 0 or right < len(places):
        to_left = start[0] - places[left][0] if left >= 0 else None
        to_right = places[right][0] - start[0] if right < len(places) else None
        if to_left is None or (to_right is not None and to_right <= to_left):
            yield places[right][2]
            right += 1
        else:
            yield places[left][2]
            left -= 1
