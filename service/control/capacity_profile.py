"""Free capacity over time, as far as ends are known: the book that back-fill reads. Knows no jobs.

A step function: `times[i]` is when `free[i]` begins to hold; the last step holds for ever. What somebody claims is taken out
of the steps that it covers, so that whoever comes later only gets what he leaves.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.control.capacity import Resources


@dataclass(kw_only=True)
class Window:
    """GPUs that are kept for a tenant from `start_s` to `end_s`: those that it does not use already."""

    tenant: str
    gpus: float
    start_s: float
    end_s: float


class CapacityProfile:
    """What is free from `now_s` on."""

    def __init__(self, now_s: float, free: Resources, ends: Iterable[tuple[float, Resources]], windows: Sequence[Window] = ()) -> None:
        self.now_s = now_s
        self.windows = list(windows)
        self._times = [now_s]
        self._free = [free]
        for end_s, resources in sorted(ends, key=lambda end: end[0]):  # linear: there may be a thousand
            more = self._free[-1].plus(resources)
            if end_s <= self._times[-1]:
                self._free[-1] = more
            else:
                self._times.append(end_s)
                self._free.append(more)
        for window in windows:
            for time_s in (window.start_s, window.end_s):
                if time_s > now_s:
                    self._cut(time_s)

    def free_at(self, time_s: float, tenant: str) -> Resources:
        """What the tenant may have at that time."""
        step = bisect_right(self._times, time_s) - 1
        return self._for(step, tenant)

    def fits(self, demand: Resources, tenant: str, start_s: float, lasts_s: float, unknown_lasts_s: float) -> bool:
        """Whether it is free from start to end. What lasts for an unknown time (infinite) keeps out of windows for `unknown_lasts_s`."""
        first = bisect_right(self._times, start_s) - 1
        minds_windows_until_s = start_s + (unknown_lasts_s if math.isinf(lasts_s) else lasts_s)
        for step in range(first, len(self._times)):
            if step > first and self._times[step] >= start_s + lasts_s:
                break
            minds = step == first or self._times[step] < minds_windows_until_s
            if not demand.fits(self._for(step, tenant) if minds else self._free[step]):
                return False
        return True

    def earliest_s(self, demand: Resources, tenant: str, lasts_s: float, unknown_lasts_s: float) -> float | None:
        """The first time at which it fits; None: at none that is known."""
        for time_s in self._times:
            if self.fits(demand, tenant, time_s, lasts_s, unknown_lasts_s):
                return time_s
        return None

    def take(self, demand: Resources, start_s: float, lasts_s: float) -> None:
        """It is not free from start to end."""
        first = self._cut(start_s)
        last = len(self._times) if math.isinf(lasts_s) else self._cut(start_s + lasts_s)
        for step in range(first, last):
            self._free[step] = self._free[step].minus(demand)

    def hold(self, demand: Resources) -> None:
        """As much of it as is free at any time is kept, until there is enough."""
        for step, free in enumerate(self._free):
            self._free[step] = free.minus(demand.least(Resources(max(0, free.gpus), max(0, free.cpus), max(0, free.runs))))

    def give_back(self, resources: Resources, time_s: float, was_until_s: float) -> None:
        """It is free from then on, and not only from `was_until_s`, as the book says already."""
        first = self._cut(max(time_s, self.now_s))
        last = len(self._times) if math.isinf(was_until_s) else self._cut(was_until_s)
        for step in range(first, last):
            self._free[step] = self._free[step].plus(resources)

    def use_window(self, tenant: str, gpus: float) -> None:
        """The tenant uses that many of the GPUs reserved for it now."""
        for window in self.windows:
            if window.tenant == tenant and window.start_s <= self.now_s < window.end_s:
                used = min(window.gpus, gpus)
                window.gpus -= used
                gpus -= used

    def _for(self, step: int, tenant: str) -> Resources:
        if not self.windows:
            return self._free[step]
        time_s = self._times[step]
        kept = sum(window.gpus for window in self.windows if window.tenant != tenant and window.start_s <= time_s < window.end_s)
        return self._free[step].minus(Resources(gpus=kept))

    def _cut(self, time_s: float) -> int:
        """The step that begins at that time, from now on."""
        after = bisect_right(self._times, time_s)
        if self._times[after - 1] == time_s:
            return after - 1
        self._times.insert(after, time_s)
        self._free.insert(after, self._free[after - 1])
        return after
