"""Fills in where adapters go on from, in specs that name a job or a version of their tenant: its artifact and the digest it must have.

What a spec names is looked up once, as its job is created: an alias that moves later changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from lorafleet.catalog import METHODS
from lorafleet.errors import FailedPrecondition, InvalidSpec, LorafleetError, NotFound, Violation
from lorafleet.spec import Spec
from lorafleet.spec_adapter import StartSpec
from lorafleet.work import TRAINING
from service.control.lifecycle import JobState
from service.core.resource_names import AliasName, parse_version
from service.db import named_versions
from service.db.database import Database
from service.db.errors import Contended
from service.db.models import JobRow
from service.db.named_versions import Found, Reference
from service.db.registry_models import AdapterVersionRow
from service.db.transaction import Transaction

MOVED = "the alias that adapter.start.adapter names was moved meanwhile; try again"
OF_ONE_RANK = ("lora", "dora", "loha")  # methods whose files must have the rank of the spec


class StartMoved(Contended):
    """The alias that a spec names was moved while its job was checked."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What there is of what specs name."""

    jobs: dict[str, JobRow]
    versions: dict[Reference, Found]


async def filled_in(db: Database, tenant: str, spec: Spec) -> Spec:
    """Raises NotFound for what there is not, or is another tenant's, FailedPrecondition for what cannot be gone on from now, and
    InvalidSpec for a version that does not fit the spec."""
    [found] = await all_filled_in(db, tenant, [spec])
    if isinstance(found, LorafleetError):
        raise found
    return found


async def all_filled_in(db: Database, tenant: str, specs: Sequence[Spec]) -> list[Spec | LorafleetError]:
    """Each spec with its start, or why it has none. An artifact never changes: with the same aliases the same spec becomes the same."""
    starts = [start for spec in specs if (start := spec.adapter.start) is not None and start.named is not None]
    if not starts:
        return list(specs)
    asked = sorted({start.job_id for start in starts if start.job is not None})
    async with db.snapshot() as tx:
        rows = (
            await tx.session.scalars(select(JobRow).where(JobRow.tenant == tenant, JobRow.kind == TRAINING, JobRow.job_id.in_(asked)))
            if asked
            else ()
        )
        versions = await named_versions.find(tx, tenant, {_reference(start, tenant) for start in starts if start.adapter is not None})
        known = _Known(jobs={row.job_id: row for row in rows}, versions=versions)
    return [_filled_in(tenant, spec, known) for spec in specs]


async def moved(tx: Transaction, tenant: str, specs: Iterable[tuple[Spec | None, Spec]]) -> list[bool]:
    """Of each spec, as it was asked for and with its start, whether the alias that it names points elsewhere by now."""
    named = [(_alias(asked, tenant), spec.adapter.start) for asked, spec in specs]
    now = await named_versions.find(tx, tenant, {alias for alias, _ in named if alias is not None})
    return [alias is not None and start is not None and (alias not in now or now[alias][1].name != start.adapter) for alias, start in named]


async def check_not_moved(tx: Transaction, tenant: str, specs: Iterable[tuple[Spec | None, Spec]]) -> None:
    """Raises StartMoved."""
    if any(await moved(tx, tenant, specs)):
        raise StartMoved(MOVED)


def read(spec: Spec) -> list[tuple[StartSpec, str]]:
    """What it goes on from, and where that lies, once it is filled in."""
    start = spec.adapter.start
    return [] if start is None or start.uri is None else [(start, start.uri)]


def field(start: StartSpec) -> str:
    """Where a spec says what it goes on from."""
    return f"adapter.start.{'job' if start.job is not None else 'adapter' if start.adapter is not None else 'uri'}"


def _reference(start: StartSpec, tenant: str) -> Reference:
    return parse_version(start.version_name(tenant), "adapter.start.adapter")


def _alias(asked: Spec | None, tenant: str) -> AliasName | None:
    start = None if asked is None else asked.adapter.start
    name = None if start is None or start.adapter is None else _reference(start, tenant)
    return name if isinstance(name, AliasName) else None


def _filled_in(tenant: str, spec: Spec, known: _Known) -> Spec | LorafleetError:
    start = spec.adapter.start
    if start is None or start.named is None:
        return spec
    if start.job is not None:
        return _from_job(tenant, spec, start, known)
    name = _reference(start, tenant)
    found = known.versions.get(name)
    if found is None:
        return named_versions.not_found(field(start), name, tenant)
    _, version = found
    if (unusable := named_versions.unusable(found)) is not None:
        return FailedPrecondition(f"{field(start)}: {version.name} {unusable[1]}", reason="START_NOT_USABLE")
    if misfits := [*_misfits(spec, start, version)]:
        return InvalidSpec(misfits)
    return _starting(spec, start, uri=version.artifact_uri, digest=version.manifest_sha256, adapter=version.name)


def _from_job(tenant: str, spec: Spec, start: StartSpec, known: _Known) -> Spec | LorafleetError:
    row = known.jobs.get(start.job_id)
    if row is None or start.tenant not in (None, tenant):
        name = f"tenants/{start.tenant or tenant}/jobs/{start.job_id}"
        return NotFound(
            f"{field(start)}: there is no job {name} of tenants/{tenant}; name one, or the URI of its artifact", reason="JOB_NOT_FOUND"
        )
    if row.state != JobState.SUCCEEDED.value or not row.artifact_uri or not row.artifact_sha256:
        message = f"{field(start)}: {row.name} is {row.state}, and has no artifact to go on from; submit this job once it has succeeded"
        return FailedPrecondition(message, reason="START_NOT_SUCCEEDED")
    return _starting(spec, start, uri=row.artifact_uri, digest=row.artifact_sha256)


def _misfits(spec: Spec, start: StartSpec, version: AdapterVersionRow) -> Iterable[Violation]:
    """What the registry knows of the version and the run would end of. Overrides give layers ranks of their own, which it does not know."""
    family, adapter = spec.base_model.family, spec.adapter
    if family is not None and version.family not in ("", family):
        yield Violation(field="base_model.family", message=f"is {family}, and {version.name} goes with {version.family}")
    if start.resize or not version.method:
        return
    resize = "write that, or set adapter.start.resize"
    if _kind(version.method) != _kind(adapter.method):
        yield Violation(field="adapter.method", message=f"is {adapter.method}, and {version.name} is {version.method}: {resize}")
    elif _kind(adapter.method) in OF_ONE_RANK and not adapter.overrides and version.rank not in (0, adapter.rank):
        yield Violation(field="adapter.rank", message=f"is {adapter.rank}, and {version.name} has {version.rank}: {resize}")


def _kind(method: str) -> str:
    """What files call it: all methods that train A and B alone leave the same."""
    return "lora" if method in METHODS.names() and set(METHODS.get(method).names) == {"A", "B"} else method


def _starting(spec: Spec, start: StartSpec, **found: str) -> Spec:
    return spec.model_copy(update={"adapter": spec.adapter.model_copy(update={"start": start.model_copy(update=found)})})
