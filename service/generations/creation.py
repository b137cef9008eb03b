"""Creates generations. The store is accessed outside transactions."""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Any

from lorafleet import work
from lorafleet.contract.layout import job_root, join, tenant_root
from lorafleet.errors import InvalidInput, InvalidSpec, Violation
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.work.generation import KIND, ServedGeneration
from service.db import attempts, audit, events, jobs, quotas, requests
from service.db.database import Database
from service.db.models import JobRow
from service.generations.adapters import check_fit, versions_of
from service.jobs import creation
from service.jobs.creation import AllowanceChanged, New
from service.jobs.kinds.generation import WIRE
from service.jobs.new_rows import new_row
from service.jobs.pod_profiles import ONLY_DEFAULT, unknown_profile
from service.store import spec_checks
from service.store.client import Store
from service.tenancy import allowances
from service.tenancy.allowances import Allowance, Allowances
from service.tenancy.grants import Grants, Use

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NewGeneration(New):
    """A generation to create."""

    spec: ServedGeneration  # as it was sent: a repeat is the same wherever aliases point by then

    @property
    def body(self) -> dict[str, Any]:
        return {"generation": self.job_id, "spec": self.spec.model_dump(mode="json")}


class Generations:
    """The creation of generations, of all tenants."""

    def __init__(self, db: Database, store: Store, artifacts_uri: str, profiles: frozenset[str] = ONLY_DEFAULT) -> None:
        self._db = db
        self._store = store
        self._artifacts_uri = artifacts_uri
        self._profiles = profiles
        self._grants = Grants(db, artifacts_uri)
        self._allowances = Allowances(db)

    async def create(self, new: NewGeneration, *, validate_only: bool = False) -> pb.Generation:
        """The generation, accepted and committed; the first one again for a repeated request.

        Raises InvalidSpec with every violation that the store and the registry show, NotFound and FailedPrecondition for adapters,
        AlreadyExists, QuotaExceeded, Unavailable when the store is away, and Contended when the tenant's grants change meanwhile.
        """
        if (known := await self._answered(new)) is not None:
            return known
        versions = await versions_of(self._db, new.tenant, new.spec)
        check_fit(new.spec, versions)
        spec = new.spec.with_resolved({name: version.resolved for name, version in versions.items()})
        await asyncio.to_thread(_check_apart, spec)
        allowance = await self._allowances.fresh(new.tenant)
        await self._check(new, spec, allowance)
        row = self._row(new, spec)
        if validate_only:
            row.create_time = row.update_time = self._db.clock.now()
            return WIRE.message(row, [])
        return await self._accepted(new, row, allowance)

    async def _answered(self, new: NewGeneration) -> pb.Generation | None:
        """The one that this request made before. Raises AlreadyExists for another body, and for an id that is taken."""
        async with self._db.snapshot() as tx:
            row = (await creation.existing(tx, [new])).answer(new)
            return None if row is None else WIRE.message(row, await attempts.of_job(tx, row))

    async def _check(self, new: NewGeneration, spec: ServedGeneration, allowance: Allowance) -> None:
        """Everything that is not in the database. Raises InvalidSpec and Unavailable."""
        files = [(field, use.uri) for field, use in spec.uses if not use.is_version]
        base = spec.base_model
        parts = [(f"base_model.{field}", uri) for field, uri in base.part_fields]
        self._grants.check_against(
            allowance.granted, new.tenant, [Use(*each) for each in (("base_model.uri", base.uri), *parts, *dict.fromkeys(files))]
        )
        store, checked = self._store.of(allowance.store_credentials), spec_checks.checked
        found = await asyncio.gather(
            checked("base_model.uri", spec_checks.base_model, store, base.uri),
            *(checked(field, spec_checks.part, store, uri) for field, uri in parts),
            *(checked(field, spec_checks.adapter, store, uri) for field, uri in files),
            checked("output_uri", spec_checks.writable, store, join(tenant_root(self._artifacts_uri, new.tenant), KIND.collection)),
        )
        if wrong := [*unknown_profile(spec.cluster, self._profiles), *(each for each in found if each is not None)]:
            raise InvalidSpec(wrong)

    async def _accepted(self, new: NewGeneration, row: JobRow, allowance: Allowance) -> pb.Generation:
        async with self._db.transaction() as tx:
            known = (await creation.existing(tx, [new])).answer(new)
            if known is not None:
                return WIRE.message(known, await attempts.of_job(tx, known))
            (await quotas.room(tx, new.tenant)).take()
            if await allowances.read(tx, new.tenant) != allowance:
                raise AllowanceChanged("what the tenant is allowed changed meanwhile; try again")
            await jobs.insert_rows(tx, [row])
            if new.request_id:
                await requests.add(tx, {new.request_id: (new.body_sha256, row)})
            audit.about(row.name)
            await events.append(tx, [row])  # last: it holds the row that all writers need
        log.info("accepted %s", row.name)
        return WIRE.message(row, [])

    def _row(self, new: NewGeneration, spec: ServedGeneration) -> JobRow:
        work_id = new.job_id or work.id_in(KIND.collection, f"gen-{secrets.token_hex(5)}")
        output_uri = job_root(self._artifacts_uri, work.name_of(new.tenant, work_id))
        return new_row(new.tenant, work_id, spec, spec.model_dump(mode="json"), output_uri, new.created_by, kind=KIND.name)


def _check_apart(spec: ServedGeneration) -> None:
    """Two names in a set's place may stand for one version: it would be drawn twice. Raises InvalidSpec."""
    try:
        spec.drawn()
    except InvalidInput as error:
        raise InvalidSpec(list(error.violations) or [Violation(field="adapters", message=error.message)]) from None
