"""Chooses which runs of lower classes make room for a job: as few as possible, those that lose least first. Values to values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.control.capacity import NOTHING, Resources
from service.control.priority import PriorityClass


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A run that could be stopped: every job in it may be preempted, and is of `priority_class` or lower."""

    run_id: str
    resources: Resources
    priority_class: PriorityClass  # the highest in it
    started_s: float
    ends_s: float = math.inf  # infinite: unknown


def victims(demand: Resources, free: Resources, runs: Sequence[Victim], below: PriorityClass) -> list[Victim]:
    """The runs to stop so that `demand` fits beside what is free; none when all of them together would not make room.

    One run is better than two; of as many, those of the lowest class, and of them the most recently started: they lose least.
    """
    missing = demand.minus(free)
    lower = [run for run in runs if run.priority_class < below and run.resources.helps(missing)]
    lower.sort(key=lambda run: (run.priority_class, -run.started_s, run.run_id))
    alone = next((run for run in lower if demand.fits(free.plus(run.resources))), None)
    if alone is not None:
        return [alone]
    chosen: list[Victim] = []
    room = free
    for run in lower:
        if demand.fits(room):
            break
        chosen.append(run)
        room = room.plus(run.resources)
    return _spared(demand, free, chosen) if demand.fits(room) else []


def _spared(demand: Resources, free: Resources, chosen: Sequence[Victim]) -> list[Victim]:
    """Without those that later ones have made needless, the highest class and the longest at work first."""
    kept = list(chosen)
    for run in reversed(chosen):
        others = [other for other in kept if other is not run]
        if demand.fits(free.plus(_together(others))):
            kept = others
    return kept


def _together(runs: Sequence[Victim]) -> Resources:
    total = NOTHING
    for run in runs:
        total = total.plus(run.resources)
    return total
