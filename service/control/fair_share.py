"""Whose job comes next: classes first, then the tenant with the smallest weighted dominant share, then its own order.

Dominant resource fairness by progressive filling (Ghodsi et al., NSDI 2011): the share of a tenant is the largest of its parts
of the GPUs, the CPUs and the runs; whoever has the smallest share for its weight is next. What a job is going to take is
charged when its turn comes, so that the order beyond the jobs that start now is the order in which the rest will start.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush

from service.control.packing import Candidate
from service.control.priority import PriorityClass, class_in_queue, class_of

_LEAST_WEIGHT = 1e-6
_Entry = tuple[float, int, str]  # share, order of the tenant's first job, tenant


class FairOrder:
    """The queue, one job at a time."""

    def __init__(
        self,
        queue: Sequence[Candidate],
        shares: Mapping[str, float],
        weight: Callable[[str], float],
        *,
        now_s: float,
        promote_after_s: float,
    ) -> None:
        self._shares = defaultdict[str, float](float, shares)
        self._weight = weight
        self._queues: dict[PriorityClass, dict[str, list[Candidate]]] = {of: {} for of in PriorityClass}
        raised = set[str]()  # those that have waited into a higher class are first there: their number would keep them last
        for job in queue:
            of = class_in_queue(job.priority, now_s - job.submitted_s, promote_after_s)
            self._queues[of].setdefault(job.tenant, []).append(job)
            if of > class_of(job.priority):
                raised.add(job.uid)
        for tenants in self._queues.values():
            for jobs in tenants.values():
                jobs.sort(key=lambda job: (job.uid not in raised, job.rank), reverse=True)  # the first at the end, where it is taken from

    def charge(self, tenant: str, share: float) -> None:
        """The tenant takes so much of the capacity."""
        self._shares[tenant] += share / max(self._weight(tenant), _LEAST_WEIGHT)

    def jobs(self, is_left: Callable[[str], bool]) -> Iterator[Candidate]:
        """Jobs whose uid `is_left`, in order. Charge what each takes before the next is asked for."""
        for of in sorted(self._queues, reverse=True):
            yield from self._of_class(self._queues[of], is_left)

    def _of_class(self, queues: dict[str, list[Candidate]], is_left: Callable[[str], bool]) -> Iterator[Candidate]:
        heap: list[_Entry] = [self._entry(tenant, jobs) for tenant, jobs in queues.items()]
        heapify(heap)
        while heap:
            share, _, tenant = heappop(heap)
            jobs = queues[tenant]
            while jobs and not is_left(jobs[-1].uid):
                jobs.pop()
            if not jobs:
                continue
            if share < self._shares[tenant]:  # charged since: another may be before it now
                heappush(heap, self._entry(tenant, jobs))
                continue
            yield jobs.pop()
            if jobs:
                heappush(heap, self._entry(tenant, jobs))

    def _entry(self, tenant: str, jobs: Sequence[Candidate]) -> _Entry:
        return (self._shares[tenant], jobs[-1].order, tenant)
