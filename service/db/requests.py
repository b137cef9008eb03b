"""Keeps request ids that were answered (AIP-155) for a day; then they are forgotten, and free again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select, update

from service.db.models import BatchRow, JobRow, RequestRow
from service.db.transaction import Transaction

KEEP_S = 24 * 3600.0


@dataclass(frozen=True)
class Answered:
    """What a request asked for, and the job that it made."""

    body_sha256: str
    job: JobRow


async def answered(tx: Transaction, tenant: str, request_ids: Sequence[str]) -> dict[str, Answered]:
    """Those of the tenant's requests that made jobs, by id."""
    query = select(RequestRow.request_id, RequestRow.body_sha256, JobRow).join(JobRow, JobRow.uid == RequestRow.job_uid)
    found = await tx.session.execute(query.where(RequestRow.tenant == tenant, RequestRow.request_id.in_(request_ids)))
    return {request_id: Answered(body_sha256=digest, job=job) for request_id, digest, job in found}


async def add(tx: Transaction, made: Mapping[str, tuple[str, JobRow]]) -> None:
    """Keeps what these requests asked for, as a digest, and the jobs that they made."""
    rows = [
        {"tenant": job.tenant, "request_id": request_id, "body_sha256": digest, "job_uid": job.uid, "create_time": tx.now}
        for request_id, (digest, job) in made.items()
    ]
    await tx.insert(RequestRow, rows)


async def forget(tx: Transaction, before: datetime) -> None:
    """Forgets the ids of requests that were answered before then. What they created stays."""
    unsynced = {"synchronize_session": False}
    await tx.session.execute(delete(RequestRow).where(RequestRow.create_time < before).execution_options(**unsynced))
    old = (BatchRow.create_time < before, BatchRow.request_id.is_not(None))
    await tx.session.execute(update(BatchRow).where(*old).values(request_id=None).execution_options(**unsynced))
