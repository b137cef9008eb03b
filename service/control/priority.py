"""Sorts priorities into classes: named ranges of scheduling.priority. Within a class the fair share of tenants comes before the number."""

from enum import IntEnum

HIGH_FROM = 50


class PriorityClass(IntEnum):
    """A higher class comes first, and may take the places of lower ones."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


def class_of(priority: int) -> PriorityClass:
    """low: below 0. normal: 0 to 49. high: 50 and above."""
    if priority < 0:
        return PriorityClass.LOW
    return PriorityClass.HIGH if priority >= HIGH_FROM else PriorityClass.NORMAL


def class_in_queue(priority: int, waited_s: float, promote_after_s: float) -> PriorityClass:
    """The class that it queues in: one higher for each `promote_after_s` that it has waited, so that none waits for ever.

    It never takes the place of another by that: preemption asks `class_of`.
    """
    raised = class_of(priority) + max(0, int(waited_s // promote_after_s))
    return PriorityClass(min(raised, PriorityClass.HIGH))
