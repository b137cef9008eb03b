"""Creates, gets and cancels jobs. The store is accessed outside transactions."""

import logging
import secrets
from dataclasses import replace
from functools import partial
from typing import Any

from lorafleet import work
from lorafleet.contract.layout import job_root
from lorafleet.errors import LorafleetError, NotFound
from lorafleet.spec import Spec
from lorafleet.v1 import training_service_pb2 as pb
from service.access.authorization import may_end
from service.access.identity import Identity
from service.control import lifecycle
from service.control.runs import StopPolicy
from service.core.etags import check_etag
from service.core.group_commit import Coalescer
from service.core.resource_names import JobName
from service.db import attempts, audit, jobs, runs
from service.db.database import Database
from service.db.errors import may_be_committed
from service.db.models import JobRow
from service.db.transaction import Transaction
from service.jobs import kinds, starts
from service.jobs.creation import AllowanceChanged, Draft, NewJob, accept, answered
from service.jobs.messages import job_etag, job_message
from service.jobs.new_rows import new_row
from service.jobs.pod_profiles import ONLY_DEFAULT, unknown_profile
from service.runs.stops import stop_what_is_over
from service.store.client import Store
from service.store.spec_checks import Shared, StoreChecks, probed_folder
from service.tenancy.allowances import Allowance, Allowances
from service.tenancy.grants import Grants, Use

log = logging.getLogger(__name__)


class Jobs:
    """The jobs of all tenants; other work is read and cancelled here, too."""

    def __init__(self, db: Database, store: Store, artifacts_uri: str, policy: StopPolicy, profiles: frozenset[str] = ONLY_DEFAULT) -> None:
        self._db = db
        self._store = store
        self._artifacts_uri = artifacts_uri
        self._policy = policy
        self._profiles = profiles
        self._grants = Grants(db, artifacts_uri)
        self._checks = StoreChecks()
        self._allowances = Allowances(db)
        self._accept = Coalescer[Draft, pb.TrainingJob](partial(accept, db), may_be_done=may_be_committed)

    async def create(self, new: NewJob, *, validate_only: bool = False) -> pb.TrainingJob:
        """The job, accepted and committed; the first one again for a repeated request.

        Raises InvalidSpec with every violation that the store and the profiles show, NotFound and FailedPrecondition for a job or a version
        that it cannot go on from, AlreadyExists, QuotaExceeded, Unavailable when the store is away, and Contended when the tenant's grants
        or the alias that it goes on from change meanwhile.
        """
        if validate_only and (known := await answered(self._db, new)) is not None:
            return known
        try:
            return await self._create(new, validate_only=validate_only)
        except starts.StartMoved:
            return await self._create(new, validate_only=validate_only)

    async def _create(self, new: NewJob, *, validate_only: bool) -> pb.TrainingJob:
        try:
            new = replace(new, spec=await starts.filled_in(self._db, new.tenant, new.spec), asked=new.spec)
            row = self._row(new)
            allowance = await self._check(new, row, by_known=not validate_only)
        except LorafleetError:
            # A repeat whose job has ended, or whose inputs are gone by now, gets its answer all the same.
            if (known := await answered(self._db, new)) is not None:
                return known
            raise
        if validate_only:
            row.create_time = row.update_time = self._db.clock.now()
            return job_message(row, [])
        accepted = await self._accepted(new, row, allowance)
        log.info("accepted %s", accepted.name)
        return accepted

    async def _accepted(self, new: NewJob, row: JobRow, allowance: Allowance) -> pb.TrainingJob:
        draft = Draft(new=new, row=row, allowance=allowance, entry=audit.current_entry.get())
        try:
            return await self._accept(new.tenant, draft)
        except AllowanceChanged:
            allowance = await self._check(new, row, by_known=False)
            return await self._accept(new.tenant, replace(draft, allowance=allowance))

    async def _check(self, new: NewJob, row: JobRow, *, by_known: bool) -> Allowance:
        """Everything that is not in the database; what the tenant was allowed when that was checked. `by_known`: a job passes by what
        was known before. Raises InvalidSpec and Unavailable."""
        known = self._allowances.known(new.tenant) if by_known else None
        if known is not None:
            try:
                await self._check_by(known, new, row)
                return known
            except LorafleetError:  # a grant may be new, or a credential
                if known == await self._allowances.fresh(new.tenant):
                    raise
        fresh = await self._allowances.fresh(new.tenant)
        await self._check_by(fresh, new, row)
        return fresh

    async def _check_by(self, allowance: Allowance, new: NewJob, row: JobRow) -> None:
        self._grants.check_against(allowance.granted, new.tenant, _uses(new.spec))
        shared = Shared(
            self._store.of(allowance.store_credentials),
            new.spec.base_model.uri,
            tuple(new.spec.dataset.uris),
            probed_folder(new.spec.output.uri, row.output_uri, new.tenant, self._artifacts_uri),
            tuple(new.spec.base_model.part_fields),
        )
        is_new = not new.job_id and new.spec.output.uri is None  # its name was made up a moment ago
        await self._checks.check(shared, None if is_new else row.output_uri, also=unknown_profile(new.spec.cluster, self._profiles))

    async def get(self, name: JobName) -> Any:
        """The message of its kind. Raises NotFound."""
        async with self._db.snapshot() as tx:
            return await message(tx, await _existing(tx, name))

    async def cancel(self, name: JobName, etag: str = "", *, caller: Identity | None = None) -> Any:
        """Without `caller` the service itself asks. Raises NotFound, PermissionDenied for another's job, Aborted for another
        etag, and FailedPrecondition (JOB_FINISHED) for a job that ended otherwise."""
        async with self._db.transaction() as tx:
            found = await _existing(tx, name)
            [row] = await runs.lock_jobs(tx, [found.uid])
            if caller is not None:
                may_end(caller, row.created_by)
            before, after = jobs.value(row), lifecycle.cancel(jobs.value(row), tx.now)
            if after != before:
                check_etag(row.name, job_etag(row), etag)
            if jobs.save(tx, row, after):
                log.info("cancelling %s", row.name)
                await stop_what_is_over(tx, {row.uid: before.state}, self._policy)
        async with self._db.snapshot() as tx:
            return await message(tx, await _existing(tx, name))

    def _row(self, new: NewJob) -> JobRow:
        job_id = new.job_id or f"job-{secrets.token_hex(5)}"
        output_uri = new.spec.output.uri or job_root(self._artifacts_uri, f"tenants/{new.tenant}/jobs/{job_id}")
        return new_row(new.tenant, job_id, new.spec, new.stored_spec, output_uri, new.created_by)


async def message(tx: Transaction, row: JobRow) -> Any:
    """The job, or other work, as users see it."""
    return kinds.of(row.kind).message(row, await attempts.of_job(tx, row))


def _uses(spec: Spec) -> list[Use]:
    parts = [Use(f"base_model.{field}", uri) for field, uri in spec.base_model.part_fields]
    data = [Use(f"dataset.{field}", uri) for field, uri in spec.dataset.uris]
    start = [Use(starts.field(start), uri) for start, uri in starts.read(spec)]
    merged = [Use(f"output.merge.adapters[{number}].uri", uri) for number, uri in enumerate(spec.output.merged_with)]
    uses = [Use("base_model.uri", spec.base_model.uri), *parts, *data, *start, *merged]
    return uses if spec.output.uri is None else [*uses, Use("output.uri", spec.output.uri, write=True)]


async def _existing(tx: Transaction, name: JobName) -> JobRow:
    row = await jobs.by_name(tx, name.tenant, name.job_id)
    if row is None:
        raise not_found(name)
    return row


def not_found(name: JobName) -> NotFound:
    """There is no job, or other work, of that name."""
    one = work.one_of(name.job_id)
    return NotFound(f"there is no {one} {name}", reason=f"{one.upper()}_NOT_FOUND")
