"""Sums up what a simulation has shown: waiting times, fairness, utilisation. Numbers from numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from service.control.priority import class_of
from service.simulate.engine import Life, SimulationResult
from service.simulate.fairness import jain


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Seconds from submission to the first start, of those that started."""

    num_jobs: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Of one simulation."""

    all: Waits
    by_class: dict[str, Waits]
    by_tenant: dict[str, Waits]
    utilisation: float  # of the GPUs, from the first to the last submission
    fairness: float  # Jain's index of `got_of_fair`
    num_preemptions: int
    num_never_started: int
    num_unfinished: int
    num_rounds: int
    most_waiting: int
    makespan_s: float
    # GPUs that each tenant held while it had jobs waiting, over those that max-min fair sharing by weight would have given it.
    got_of_fair: dict[str, float] = field(default_factory=dict[str, float])

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def summed_up(outcome: SimulationResult) -> Report:
    """The report of an outcome."""
    lives = outcome.lives
    got = {tenant: outcome.held[tenant] / part for tenant, part in sorted(outcome.entitled.items()) if part > 0}
    gpus = outcome.capacity.gpus
    return Report(
        all=_waits(lives),
        by_class=_grouped(lives, lambda life: class_of(life.job.priority).name.lower()),
        by_tenant=_grouped(lives, lambda life: life.job.tenant),
        utilisation=outcome.gpu_seconds / (gpus * outcome.span_s) if outcome.span_s and 0 < gpus < math.inf else 0.0,
        fairness=jain(list(got.values())),
        num_preemptions=sum(life.num_preemptions for life in lives),
        num_never_started=sum(life.first_start_s is None for life in lives),
        num_unfinished=sum(life.end_s is None for life in lives),
        num_rounds=outcome.num_rounds,
        most_waiting=outcome.most_waiting,
        makespan_s=max((life.end_s for life in lives if life.end_s is not None), default=0.0) - lives[0].job.submit_s,
        got_of_fair=got,
    )


def _grouped(lives: Sequence[Life], key: Callable[[Life], str]) -> dict[str, Waits]:
    groups: dict[str, list[Life]] = {}
    for life in lives:
        groups.setdefault(key(life), []).append(life)
    return {name: _waits(groups[name]) for name in sorted(groups)}


def _waits(lives: Sequence[Life]) -> Waits:
    waits = sorted(life.first_start_s - life.job.submit_s for life in lives if life.first_start_s is not None)
    if not waits:
        return Waits(num_jobs=0, mean_s=0.0, p50_s=0.0, p90_s=0.0, p99_s=0.0, max_s=0.0)
    return Waits(
        num_jobs=len(waits),
        mean_s=sum(waits) / len(waits),
        p50_s=_percentile(waits, 50),
        p90_s=_percentile(waits, 90),
        p99_s=_percentile(waits, 99),
        max_s=waits[-1],
    )


def _percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile: the smallest value that `percent` of a hundred do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
