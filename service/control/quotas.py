"""Bounds what a tenant may have: while it runs (admission asks), and when it submits (create asks). Values to values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lorafleet.errors import QuotaExceeded, QuotaViolation
from service.control.capacity import EPSILON


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A tenant's limits and its weight in the fair share. An unset limit means unlimited."""

    max_gpus: float | None = None
    max_running_jobs: int | None = None
    max_queued_jobs: int | None = None
    max_storage_bytes: int | None = None
    weight: float = 1.0


UNLIMITED = Quota()


@dataclass(kw_only=True)
class Usage:
    """What a tenant has in runs. A run that it shares counts in full: the others may leave it at any time."""

    gpus: float = 0.0
    running_jobs: int = 0


@dataclass(kw_only=True)
class Budgets:
    """What tenants have left, while one round of admission gives it away."""

    quotas: Mapping[str, Quota] = field(default_factory=dict[str, Quota])
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])

    def of(self, tenant: str) -> Quota:
        return self.quotas.get(tenant, UNLIMITED)

    def used(self, tenant: str) -> Usage:
        return self.usage.setdefault(tenant, Usage())

    def refusal(self, tenant: str, gpus: float, num_more: int = 0) -> str:
        """Why a job of the tenant, beside `num_more`, may not start with that many more GPUs; empty: it may."""
        quota, used = self.of(tenant), self.used(tenant)
        if quota.max_running_jobs is not None and used.running_jobs + num_more >= quota.max_running_jobs:
            limit = quota.max_running_jobs
            return f"tenant {tenant} may have {limit} job{'' if limit == 1 else 's'} running at once (limit max_running_jobs), and has"
        if quota.max_gpus is not None and used.gpus + gpus > quota.max_gpus + EPSILON:
            limit = f"{quota.max_gpus:g} that it may use at once (limit max_gpus)"
            return f"needs {gpus:g} GPUs: more than tenant {tenant} has left of the {limit}"
        return ""

    def may_enter(self, tenant: str, gpus: float, *, num_inside: int) -> bool:
        """Whether another job of the tenant may be in a run with that many GPUs that is about to start with `num_inside` of its jobs."""
        if tenant not in self.quotas:
            return True
        return not self.refusal(tenant, gpus, num_inside)

    def enter(self, tenant: str, gpus: float, *, is_in_it: bool) -> None:
        """One more job of the tenant is in such a run."""
        used = self.used(tenant)
        used.running_jobs += 1
        used.gpus += 0.0 if is_in_it else gpus


def check_new_jobs(tenant: str, quota: Quota, *, num_queued: int, num_new: int, stored_bytes: int) -> None:
    """Raises QuotaExceeded with every quota that stands in the way of `num_new` more jobs: all of them or none."""
    found: list[QuotaViolation] = []
    if quota.max_queued_jobs is not None and num_queued + num_new > quota.max_queued_jobs:
        message = f"{num_queued} jobs wait and {num_new} would be added; at most {quota.max_queued_jobs} may wait (max_queued_jobs)"
        found.append(QuotaViolation(subject=f"tenants/{tenant}", description=message))
    if quota.max_storage_bytes is not None and stored_bytes >= quota.max_storage_bytes:
        message = f"adapters take {stored_bytes:,} bytes; at most {quota.max_storage_bytes:,} may be taken (max_storage_bytes)"
        found.append(QuotaViolation(subject=f"tenants/{tenant}", description=message))
    if found:
        raise QuotaExceeded(f"tenant {tenant} has used up its quota; wait for jobs to end, or ask for more", violations=found)
