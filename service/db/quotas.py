"""Reads quotas of tenants and their use, for admission and the acceptance of jobs."""

from dataclasses import dataclass

from sqlalchemy import func, select

from service.control.lifecycle import JobState
from service.control.quotas import UNLIMITED, Quota, check_new_jobs
from service.db.models import JobRow, TenantRow
from service.db.registry_models import AdapterVersionRow
from service.db.transaction import Transaction

_COLUMNS = (TenantRow.max_gpus, TenantRow.max_running_jobs, TenantRow.max_queued_jobs, TenantRow.max_storage_bytes, TenantRow.weight)


async def of_all(tx: Transaction) -> dict[str, Quota]:
    """By tenant, for tenants that were created; others have none."""
    return {row[0]: _quota(*row[1:]) for row in await tx.session.execute(select(TenantRow.id, *_COLUMNS))}


@dataclass
class RemainingQuota:
    """What a tenant may still submit in this transaction."""

    tenant: str
    quota: Quota
    num_queued: int = 0
    stored_bytes: int = 0

    def take(self, num_new: int = 1) -> None:
        """Raises QuotaExceeded when it may not submit that many more jobs, and else counts them in."""
        check_new_jobs(self.tenant, self.quota, num_queued=self.num_queued, num_new=num_new, stored_bytes=self.stored_bytes)
        self.num_queued += num_new


async def check(tx: Transaction, tenant: str, num_new: int) -> None:
    """Raises QuotaExceeded if the tenant may not submit that many more jobs. Locks other submissions of the tenant until commit."""
    (await room(tx, tenant)).take(num_new)


async def room(tx: Transaction, tenant: str) -> RemainingQuota:
    """What the tenant may still submit. If limited, locks other submissions of the tenant until commit.

    Others' jobs may only leave the queue meanwhile, or come back to it from a run; those were accepted before.
    """
    row = await tx.session.get(TenantRow, tenant)
    if row is None or (row.max_queued_jobs is None and row.max_storage_bytes is None):
        return RemainingQuota(tenant, UNLIMITED)
    query = tx.locked(select(TenantRow).where(TenantRow.id == tenant))
    if (row := await tx.session.scalar(query)) is None:
        return RemainingQuota(tenant, UNLIMITED)
    quota = _quota(row.max_gpus, row.max_running_jobs, row.max_queued_jobs, row.max_storage_bytes, row.weight)
    queued = 0 if quota.max_queued_jobs is None else await num_queued(tx, tenant)
    stored = 0 if quota.max_storage_bytes is None else await stored_bytes(tx, tenant)
    return RemainingQuota(tenant, quota, queued, stored)


async def num_queued(tx: Transaction, tenant: str) -> int:
    """Jobs that wait, those in a back-off too."""
    query = select(func.count()).select_from(JobRow).where(JobRow.tenant == tenant, JobRow.state == JobState.QUEUED.value)
    return await tx.session.scalar(query) or 0


async def stored_bytes(tx: Transaction, tenant: str) -> int:
    """Of the versions of the tenant's adapters, those too that are deleted and can still be had back; and of jobs of before, whose
    artifacts are no versions yet."""
    versions = select(func.sum(AdapterVersionRow.size_bytes)).where(AdapterVersionRow.tenant == tenant)
    unregistered = (JobRow.state == JobState.SUCCEEDED.value, JobRow.adapter_version.is_(None))
    older = select(func.sum(JobRow.artifact_bytes)).where(*unregistered, JobRow.tenant == tenant)
    return int(await tx.session.scalar(versions) or 0) + int(await tx.session.scalar(older) or 0)


def _quota(
    max_gpus: float | None, max_running_jobs: int | None, max_queued_jobs: int | None, max_storage_bytes: int | None, weight: float
) -> Quota:
    return Quota(
        max_gpus=max_gpus,
        max_running_jobs=max_running_jobs,
        max_queued_jobs=max_queued_jobs,
        max_storage_bytes=max_storage_bytes,
        weight=weight,
    )
