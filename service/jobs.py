"""What users do with jobs: create, get, cancel. One transaction for each call; the store is asked before, outside it."""

import hashlib
import json
import logging
import secrets
from dataclasses import dataclass

from lorafleet.errors import AlreadyExists, InvalidSpec, NotFound, Violation
from lorafleet.layout import job_root
from lorafleet.spec import Spec
from lorafleet.v1 import training_service_pb2 as pb
from service.access.access import may_end
from service.access.identity import Identity
from service.control import lifecycle
from service.control.runs import StopPolicy
from service.db import attempts, audit, jobs, quotas, runs
from service.db.database import Database
from service.db.models import JobRow, RequestRow
from service.db.tenants import store_credentials_of
from service.db.transaction import Transaction
from service.job_rows import new_row
from service.names import JobName
from service.profiles import ONLY_DEFAULT, unknown_profile
from service.resources import check_etag, job_etag, job_message
from service.run_stops import stop_what_is_over
from service.storage import Store
from service.store_checks import check_store
from service.tenancy.grants import Grants, Use

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to create. An empty `job_id` is chosen here; an empty `request_id` makes repeats new jobs."""

    tenant: str
    job_id: str
    request_id: str
    spec: Spec
    created_by: str = ""

    @property
    def body_sha256(self) -> str:
        """Equal for equal requests: the spec with its defaults filled in, and the id asked for."""
        body = json.dumps({"job_id": self.job_id, "spec": self.spec.model_dump(mode="json")}, sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()


class Jobs:
    """The jobs of all tenants."""

    def __init__(self, db: Database, store: Store, artifacts_uri: str, policy: StopPolicy, profiles: frozenset[str] = ONLY_DEFAULT) -> None:
        self._db = db
        self._store = store
        self._artifacts_uri = artifacts_uri
        self._policy = policy
        self._profiles = profiles
        self._grants = Grants(db, artifacts_uri)

    async def create(self, new: NewJob, *, validate_only: bool = False) -> pb.TrainingJob:
        """The job, accepted and committed; the first one again for a repeated request.

        Raises InvalidSpec with every violation that the store and the profiles show, AlreadyExists, QuotaExceeded, and
        Unavailable when the store is away.
        """
        async with self._db.snapshot() as tx:
            if (known := await _answered(tx, new)) is not None:
                return await message(tx, known)
            await _check_free(tx, new)
        row = self._row(new)
        await self._grants.check(new.tenant, _uses(new.spec))
        store = self._store.of(await store_credentials_of(self._db, new.tenant))
        await check_store(store, new.spec, row.output_uri, also=unknown_profile(new.spec, self._profiles))
        if validate_only:
            row.create_time = row.update_time = self._db.clock.now()
            return job_message(row, [])
        async with self._db.transaction() as tx:
            if (known := await _answered(tx, new)) is not None:
                return await message(tx, known)
            await _check_free(tx, new)
            await _check_output(tx, row, new)
            await quotas.check(tx, new.tenant, 1)
            await _insert(tx, row, new)
        log.info("accepted %s", row.name)
        return job_message(row, [])

    async def get(self, name: JobName) -> pb.TrainingJob:
        """Raises NotFound."""
        async with self._db.snapshot() as tx:
            return await message(tx, await _existing(tx, name))

    async def cancel(self, name: JobName, etag: str = "", *, caller: Identity | None = None) -> pb.TrainingJob:
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
        return new_row(new.tenant, job_id, new.spec, new.spec.model_dump(mode="json"), output_uri, new.created_by)


async def message(tx: Transaction, row: JobRow) -> pb.TrainingJob:
    """The job as users see it."""
    return job_message(row, (await attempts.of_jobs(tx, [row.uid]))[row.uid])


def _uses(spec: Spec) -> list[Use]:
    uses = [Use("base_model.uri", spec.base_model.uri), Use("dataset.uri", spec.dataset.uri)]
    return uses if spec.output.uri is None else [*uses, Use("output.uri", spec.output.uri, write=True)]


async def _existing(tx: Transaction, name: JobName) -> JobRow:
    row = await jobs.by_name(tx, name.tenant, name.job_id)
    if row is None:
        raise NotFound(f"there is no job {name}", reason="JOB_NOT_FOUND")
    return row


async def _answered(tx: Transaction, new: NewJob) -> JobRow | None:
    """The job that this request made before."""
    if not new.request_id:
        return None
    request = await tx.session.get(RequestRow, (new.tenant, new.request_id))
    if request is None:
        return None
    if request.body_sha256 != new.body_sha256:
        told = f"request_id {new.request_id} was used with another body; use a new UUID for a new job"
        raise AlreadyExists(told, reason="REQUEST_ID_REUSED")
    return await tx.session.get(JobRow, request.job_uid)


async def _check_free(tx: Transaction, new: NewJob) -> None:
    if new.job_id and await jobs.by_name(tx, new.tenant, new.job_id) is not None:
        told = f"tenants/{new.tenant}/jobs/{new.job_id} exists; choose another id, or leave it empty to have one chosen"
        raise AlreadyExists(told, reason="JOB_ID_TAKEN")


async def _check_output(tx: Transaction, row: JobRow, new: NewJob) -> None:
    if (other := await jobs.writing_to(tx, row.output_uri)) is not None:
        await _check_free(tx, new)  # committed since it was asked for: then the name is what is wrong
        raise InvalidSpec([Violation(field="output.uri", message=f"{other.name} is writing to {row.output_uri}; choose another folder")])


async def _insert(tx: Transaction, row: JobRow, new: NewJob) -> None:
    row.create_time = row.update_time = tx.now
    tx.session.add(row)
    audit.about(row.name)
    await tx.session.flush()  # before the rows that refer to it
    if new.request_id:
        digest = new.body_sha256
        tx.session.add(RequestRow(tenant=new.tenant, request_id=new.request_id, body_sha256=digest, job_uid=row.uid, create_time=tx.now))
    tx.touch(row)
