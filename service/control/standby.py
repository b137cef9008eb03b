"""Decides when workers come up to stand by for a first job, and when they end. Knows nothing of databases, clocks or Ray."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorafleet.backoff import doubled_s
from service.control.capacity import Resources
from service.control.compatibility import Cluster

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class StandbyRules:
    """How many groups of workers stand by, and within what."""

    num_groups: int = 0
    memory_gib: float = 2.0  # that a worker may hold, and that must be free where one comes up
    after_idle_s: float = 10.0  # without a change of what is queued and runs
    start_within_s: float = 600.0
    first_backoff_s: float = 60.0  # from a failure to the next try, doubled with each
    max_backoff_s: float = 3600.0

    def backoff_s(self, failures: int) -> float:
        return doubled_s(self.first_backoff_s, self.max_backoff_s, failures - 1) if failures else 0.0


@dataclass(frozen=True, kw_only=True)
class StandbyWorkers:
    """Workers that stand by, or come up for it. No job is on its way to them."""

    run_id: str
    shape: Cluster
    starts_for_s: float | None = None  # so far; None: they are up
    leaves: bool = False  # it was told to end


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What there is."""

    idle_s: float | None  # since something last changed; None: jobs wait
    wanted: Cluster  # the shape to begin with
    is_learned: bool  # a job has asked for that shape: others make place for it
    groups: Sequence[StandbyWorkers] = ()  # the oldest first
    free: Resources
    free_memory_bytes: float = math.inf
    retry_in_s: float = 0.0  # after a failure


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Start a group of this shape."""

    shape: Cluster


@dataclass(frozen=True, kw_only=True)
class End:
    """End this one."""

    run_id: str
    why: str


def decide(moment: Moment, rules: StandbyRules) -> Begin | End | None:
    """The next thing to do; None: nothing now. While jobs wait, admission alone gives their places away."""
    if moment.idle_s is None:
        return None
    staying = [group for group in moment.groups if not group.leaves]
    for number, group in enumerate(staying):
        if why := _must_end(number, group, moment, rules):
            return End(run_id=group.run_id, why=why)
    if len(moment.groups) < rules.num_groups and _may_begin(moment, rules):
        return Begin(shape=moment.wanted)
    return None


def _must_end(number: int, group: StandbyWorkers, moment: Moment, rules: StandbyRules) -> str:
    """Why; empty: it need not."""
    if number >= rules.num_groups:
        return f"{rules.num_groups} may stand by"
    if group.starts_for_s is not None and group.starts_for_s >= rules.start_within_s:
        return f"they were not up within {rules.start_within_s:.0f} s"
    is_idle = moment.idle_s is not None and moment.idle_s >= rules.after_idle_s
    return "jobs ask for workers of another shape" if is_idle and moment.is_learned and group.shape != moment.wanted else ""


def _may_begin(moment: Moment, rules: StandbyRules) -> bool:
    """Where nobody knows what is free, nobody could see that they must give way."""
    demand = moment.wanted.resources
    is_known = not math.isinf(moment.free.cpus) and (demand.gpus == 0 or not math.isinf(moment.free.gpus))
    has_memory = moment.free_memory_bytes >= moment.wanted.num_workers * rules.memory_gib * GIB
    is_idle = moment.idle_s is not None and moment.idle_s >= rules.after_idle_s
    return is_idle and is_known and has_memory and moment.retry_in_s <= 0 and demand.fits(moment.free)
