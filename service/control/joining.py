"""Which queued jobs join a pack that trains. Knows nothing of databases, clocks or Ray.

Only asked while no run is free. A run that takes in ever new styles would never end, so a job joins only where it keeps
nobody waiting who comes before it: once one of those cannot join, the jobs behind it join only runs that they do not prolong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.control.packing import Candidate, PackLimits, Sharing, fits, may_share
from service.control.placing import Tenancy, tenancy
from service.control.quotas import Budgets


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run that trains, and may take in others."""

    run_id: str
    members: tuple[Candidate, ...]  # those that have not ended
    tenancy: frozenset[Tenancy]  # of every job that was ever in its process
    remaining_steps: int  # of the member that has the most before it


@dataclass(frozen=True, kw_only=True)
class Join:
    """The job joins the run."""

    uid: str
    run_id: str


def has_room(run: TrainingRun, limits: PackLimits) -> bool:
    """Whether another style could join, as far as numbers go."""
    return 0 < len(run.members) < limits.max_pack_size


def joins(queue: Sequence[Candidate], training: Sequence[TrainingRun], limits: PackLimits, budgets: Budgets | None = None) -> list[Join]:
    """The first in the queue first, each to the first run that can take it, as far as its tenant's quota goes."""
    rooms = [_RunHeadroom(run, limits) for run in training if has_room(run, limits)]
    decided: list[Join] = []
    somebody_waits = False
    for job in sorted(queue, key=lambda job: job.rank):
        if not any(room.is_open for room in rooms):
            break
        room = next((room for room in rooms if room.takes(job, budgets, may_prolong=not somebody_waits)), None)
        if room is None:
            somebody_waits = True
        else:
            room.add(job, budgets)
            decided.append(Join(uid=job.uid, run_id=room.run.run_id))
    return decided


@dataclass
class _RunHeadroom:
    """What a run still takes."""

    run: TrainingRun
    limits: PackLimits
    members: list[Candidate] = field(init=False)
    remaining_steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.members = list(self.run.members)
        self.remaining_steps = self.run.remaining_steps

    @property
    def is_open(self) -> bool:
        return len(self.members) < self.limits.max_pack_size

    def takes(self, job: Candidate, budgets: Budgets | None, *, may_prolong: bool) -> bool:
        if not self.is_open or job.key != self.members[0].key:
            return False
        if budgets is not None and budgets.refusal(job.tenant, self._more_gpus(job)):
            return False
        if not may_prolong and job.max_steps > self.remaining_steps:
            return False
        everybody = [*self.members, job]
        if any(each.alone or each.sharing is Sharing.NOBODY for each in everybody):
            return False
        present = [tenancy(each.tenant, each.sharing) for each in everybody]
        return may_share([*self.run.tenancy, *present]) and fits(everybody, self.limits)

    def _more_gpus(self, job: Candidate) -> float:
        is_inside = any(member.tenant == job.tenant for member in self.members)
        return 0.0 if is_inside else job.demand.gpus

    def add(self, job: Candidate, budgets: Budgets | None) -> None:
        if budgets is not None:
            budgets.used(job.tenant).running_jobs += 1
            budgets.used(job.tenant).gpus += self._more_gpus(job)
        self.members.append(job)
        self.remaining_steps = max(self.remaining_steps, job.max_steps)
