"""Fills in where adapters go on from, in specs that name another job of their tenant: its artifact, and the digest that it must have."""

from collections.abc import Sequence

from sqlalchemy import select

from lorafleet.errors import FailedPrecondition, LorafleetError, NotFound
from lorafleet.spec import Spec
from lorafleet.spec_adapter import StartSpec
from service.control.lifecycle import JobState
from service.db.database import Database
from service.db.models import JobRow

FIELD = "adapter.start.job"


async def filled_in(db: Database, tenant: str, spec: Spec) -> Spec:
    """Raises NotFound for a job that there is not, or that is another tenant's, and FailedPrecondition for one that has not succeeded."""
    [found] = await all_filled_in(db, tenant, [spec])
    if isinstance(found, LorafleetError):
        raise found
    return found


async def all_filled_in(db: Database, tenant: str, specs: Sequence[Spec]) -> list[Spec | LorafleetError]:
    """Each spec with its start, or why it has none. An artifact never changes: the same spec always becomes the same."""
    asked = sorted({start.job_id for spec in specs if (start := spec.adapter.start) is not None and start.job is not None})
    if not asked:
        return list(specs)
    async with db.snapshot() as tx:
        rows = await tx.session.scalars(select(JobRow).where(JobRow.tenant == tenant, JobRow.job_id.in_(asked)))
        known = {row.job_id: row for row in rows}
    return [_filled_in(tenant, spec, known) for spec in specs]


def read(spec: Spec) -> list[tuple[StartSpec, str]]:
    """What it goes on from, and where that lies, once it is filled in."""
    start = spec.adapter.start
    return [] if start is None or start.uri is None else [(start, start.uri)]


def _filled_in(tenant: str, spec: Spec, known: dict[str, JobRow]) -> Spec | LorafleetError:
    start = spec.adapter.start
    if start is None or start.job is None:
        return spec
    row = known.get(start.job_id)
    if row is None or start.tenant not in (None, tenant):
        name = f"tenants/{start.tenant or tenant}/jobs/{start.job_id}"
        return NotFound(
            f"{FIELD}: there is no job {name} of tenants/{tenant}; name one, or the URI of its artifact", reason="JOB_NOT_FOUND"
        )
    if row.state != JobState.SUCCEEDED.value or not row.artifact_uri or not row.artifact_sha256:
        message = f"{FIELD}: {row.name} is {row.state}, and has no artifact to go on from; submit this job once it has succeeded"
        return FailedPrecondition(message, reason="START_NOT_SUCCEEDED")
    return _starting(spec, start.model_copy(update={"uri": row.artifact_uri, "digest": row.artifact_sha256}))


def _starting(spec: Spec, start: StartSpec) -> Spec:
    return spec.model_copy(update={"adapter": spec.adapter.model_copy(update={"start": start})})
