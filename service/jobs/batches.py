"""Creates, gets, cancels and retries batches. The store is accessed outside transactions, as in service.jobs.jobs."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from uuid import uuid4

from lorafleet.errors import AlreadyExists, InvalidSpec, LorafleetError, NotFound, Violation
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as pb
from service.access.authorization import may_end
from service.access.identity import Identity
from service.control import lifecycle
from service.control.lifecycle import JobState
from service.control.runs import StopPolicy
from service.core.concurrency import bounded, slices
from service.core.etags import check_etag
from service.core.resource_names import BatchName
from service.db import audit, batches, jobs, quotas, runs
from service.db.batches import Counts
from service.db.database import Database
from service.db.models import BatchRow, JobRow
from service.db.retrying import again
from service.db.tenants import store_credentials_of
from service.db.transaction import Transaction
from service.jobs import batch_specs, starts
from service.jobs.batch_checks import AT_ONCE, check_store
from service.jobs.batch_specs import ItemJob, NewBatch
from service.jobs.messages import batch_etag, batch_message
from service.jobs.new_rows import new_row
from service.jobs.pod_profiles import ONLY_DEFAULT, unknown_profile
from service.runs.stops import stop_what_is_over
from service.store.client import Store
from service.store.spec_checks import has_artifact
from service.tenancy.grants import Grants, Use

SLICE = 500  # jobs that one transaction changes: reports of runs wait for no longer than that takes

log = logging.getLogger(__name__)


class Batches:
    """The batches of all tenants."""

    def __init__(self, db: Database, store: Store, artifacts_uri: str, policy: StopPolicy, profiles: frozenset[str] = ONLY_DEFAULT) -> None:
        self._db = db
        self._store = store
        self._artifacts_uri = artifacts_uri
        self._policy = policy
        self._profiles = profiles
        self._grants = Grants(db, artifacts_uri)

    async def create(self, new: NewBatch, *, validate_only: bool = False) -> pb.Batch:
        """The batch, accepted and committed as a whole; the first one again for a repeated request.

        Raises InvalidSpec with every violation of every item, AlreadyExists, QuotaExceeded (all of it or nothing), and Unavailable
        when a store is away.
        """
        batch_id = new.batch_id or f"batch-{secrets.token_hex(5)}"
        places = await self._places(new, batch_id)
        digest = await asyncio.to_thread(batch_specs.digest, new, [place.item for place in places])
        async with self._db.snapshot() as tx:
            if (known := await _answered(tx, new, digest)) is not None:
                return await message(tx, known)
            await _check_free(tx, new)
            clashes = await _clashes(tx, new, places)
        asked, places = places, await self._started(new.tenant, places)
        await self._grants.check(new.tenant, _uses(places))
        store = self._store.of(await store_credentials_of(self._db, new.tenant))
        _refuse([*clashes, *self._unknown_profiles(places), *await check_store(store, places, new.tenant, self._artifacts_uri)])
        batch, rows = await asyncio.to_thread(_rows, new, batch_id, digest, places)
        if validate_only:
            batch.create_time = self._db.clock.now()
            return batch_message(batch, Counts(by_state={JobState.QUEUED: len(rows)}))
        async with self._db.transaction() as tx:
            if (known := await _answered(tx, new, digest)) is not None:
                return await message(tx, known)
            await _check_free(tx, new)
            await quotas.check(tx, new.tenant, len(rows))
            _refuse(await _clashes(tx, new, places))
            await starts.check_not_moved(
                tx, new.tenant, ((one.item.spec, other.item.spec) for one, other in zip(asked, places, strict=True))
            )
            audit.about(batch.name)
            await batches.insert(tx, batch, rows)
            accepted = await message(tx, batch)
        log.info("accepted %s with %d jobs", batch.name, len(rows))
        return accepted

    async def specs(self, new: NewBatch) -> list[Spec]:
        """The items' specs, as `create` would take them; nothing is stored. Raises InvalidSpec."""
        places = await self._started(new.tenant, await self._places(new, new.batch_id or "batch"))
        await self._grants.check(new.tenant, _uses(places))
        return [place.item.spec for place in places]

    def _unknown_profiles(self, places: Sequence[ItemJob]) -> Iterable[Violation]:
        """Each once, however many items have it from the defaults."""
        blamed = (
            unknown_profile(place.item.spec.cluster, self._profiles, field=place.item.blame("cluster", "profile")) for place in places
        )
        return dict.fromkeys(violation for violations in blamed for violation in violations)

    async def get(self, name: BatchName) -> pb.Batch:
        """Raises NotFound."""
        async with self._db.snapshot() as tx:
            return await message(tx, await existing(tx, name))

    async def cancel(self, name: BatchName, etag: str = "", *, caller: Identity | None = None) -> pb.Batch:
        """Asks every unfinished job to end, some hundred to a transaction: a repeat goes on where a broken call ended.

        Without `caller` the service itself asks. Raises NotFound, PermissionDenied for another's batch, and Aborted for
        another etag than the one that the batch has before the first of them.
        """
        await self._check_owner(name, caller)
        num_asked = some = await again(lambda: self._cancel_some(name, etag))
        while some:
            some = await again(lambda: self._cancel_some(name))
            num_asked += some
        log.info("cancelling %s: asked %d jobs to end", name, num_asked)
        return await self.get(name)

    async def retry_failed(self, name: BatchName, etag: str = "", *, caller: Identity | None = None) -> pb.Batch:
        """Queues the failed jobs again. Those that have an artifact, or whose folder another job took over, stay as they are.

        Raises NotFound, PermissionDenied for another's batch, Aborted for another etag than the batch's, QuotaExceeded (all of
        them or none, as far as can be told before), and Unavailable when a store is away.
        """
        await self._check_owner(name, caller)
        async with self._db.snapshot() as tx:
            await _check_etag(tx, await existing(tx, name), etag)
        store = self._store.of(await store_credentials_of(self._db, name.tenant))
        uids: list[str] = []
        failed = (JobRow.state == JobState.FAILED.value,)
        behind: int | None = -1
        while behind is not None:
            async with self._db.snapshot() as tx:
                batch = await existing(tx, name)
                rows = await batches.jobs_page(tx, batch.uid, failed, behind=behind, size=SLICE)
            committed = await bounded(partial(has_artifact, store), [row.output_uri for row in rows], AT_ONCE)
            uids += [row.uid for row, has_artifact in zip(rows, committed, strict=True) if not has_artifact]
            behind = rows[-1].batch_index if len(rows) == SLICE else None
        if uids:
            async with self._db.transaction() as tx:
                await quotas.check(tx, name.tenant, len(uids))
        for some in slices(uids, SLICE):
            await self._retry(name.tenant, some)
        return await self.get(name)

    async def _check_owner(self, name: BatchName, caller: Identity | None) -> None:
        if caller is not None:
            async with self._db.snapshot() as tx:
                may_end(caller, await batches.creator(tx, (await existing(tx, name)).uid))

    async def _places(self, new: NewBatch, batch_id: str) -> list[ItemJob]:
        return batch_specs.places(new, await batch_specs.parse(new), batch_id, self._artifacts_uri)

    async def _started(self, tenant: str, places: Sequence[ItemJob]) -> list[ItemJob]:
        """With the artifacts of what they go on from. Raises InvalidSpec with all that have none, or none that fits."""
        found = await starts.all_filled_in(self._db, tenant, [place.item.spec for place in places])
        violations = [
            violation
            for place, each in zip(places, found, strict=True)
            if isinstance(each, LorafleetError)
            for violation in _of_start(place, each)
        ]
        _refuse(list(dict.fromkeys(violations)))
        specs = [each for each in found if not isinstance(each, LorafleetError)]
        return [
            place if spec is place.item.spec else replace(place, item=replace(place.item, spec=spec))
            for place, spec in zip(places, specs, strict=True)
        ]

    async def _cancel_some(self, name: BatchName, etag: str = "") -> int:
        """How many jobs were looked at; 0 when none is left. A repeat that changes nothing may have any etag."""
        async with self._db.transaction() as tx:
            batch = await existing(tx, name)
            uids = await batches.to_cancel(tx, batch.uid, size=SLICE)
            rows = [row for row in await runs.lock_jobs(tx, uids) if not jobs.value(row).finished]
            if rows:
                await _check_etag(tx, batch, etag)
            before = {row.uid: JobState(row.state) for row in rows}
            for row in rows:
                jobs.save(tx, row, lifecycle.cancel(jobs.value(row), tx.now))
            await stop_what_is_over(tx, before, self._policy)
        return len(uids)

    async def _retry(self, tenant: str, uids: Sequence[str]) -> None:
        async with self._db.transaction() as tx:
            await quotas.check(tx, tenant, len(uids))
            rows = await batches.failed(tx, uids)
            taken = await jobs.writers(tx, [row.output_uri for row in rows])
            for row in rows:
                if row.output_uri in taken:
                    log.info("%s is not queued again: %s writes to its folder now", row.name, taken[row.output_uri])
                else:
                    jobs.save(tx, row, lifecycle.retry(jobs.value(row)))


async def message(tx: Transaction, batch: BatchRow) -> pb.Batch:
    """The batch as users see it."""
    return batch_message(batch, (await batches.counts(tx, [batch.uid]))[batch.uid])


async def _check_etag(tx: Transaction, batch: BatchRow, etag: str) -> None:
    if etag:
        check_etag(batch.name, batch_etag(batch, (await batches.counts(tx, [batch.uid]))[batch.uid]), etag)


async def existing(tx: Transaction, name: BatchName) -> BatchRow:
    """Raises NotFound."""
    batch = await batches.by_name(tx, name.tenant, name.batch_id)
    if batch is None:
        raise NotFound(f"there is no batch {name}", reason="BATCH_NOT_FOUND")
    return batch


async def _answered(tx: Transaction, new: NewBatch, digest: str) -> BatchRow | None:
    """The batch that this request made before."""
    batch = await batches.by_request(tx, new.tenant, new.request_id) if new.request_id else None
    if batch is not None and batch.body_sha256 != digest:
        message = f"request_id {new.request_id} was used with another body; use a new UUID for a new batch"
        raise AlreadyExists(message, reason="REQUEST_ID_REUSED")
    return batch


async def _check_free(tx: Transaction, new: NewBatch) -> None:
    if new.batch_id and await batches.by_name(tx, new.tenant, new.batch_id) is not None:
        message = f"tenants/{new.tenant}/batches/{new.batch_id} exists; choose another id, or leave it empty to have one chosen"
        raise AlreadyExists(message, reason="BATCH_ID_TAKEN")


async def _clashes(tx: Transaction, new: NewBatch, places: Sequence[ItemJob]) -> list[Violation]:
    """Ids that other jobs have, and outputs that unfinished jobs write to."""
    taken = await jobs.ids_taken(tx, new.tenant, [place.job_id for place in places])
    writers = await jobs.writers(tx, [place.output_uri for place in places])
    ids = [
        Violation(field=f"items[{place.item.index}].job_id", message=f"tenants/{new.tenant}/jobs/{place.job_id} exists; choose another id")
        for place in places
        if place.job_id in taken
    ]
    outputs = [
        Violation(
            field=place.output_field,
            message=f"{writers[place.output_uri]} is writing to {place.output_uri}; choose another folder",
        )
        for place in places
        if place.output_uri in writers
    ]
    return [*ids, *outputs]


def _uses(places: Sequence[ItemJob]) -> Iterator[Use]:
    """Each URI where it is to be mended. An output of the service's choice is the tenant's own."""
    for place in places:
        spec, blame = place.item.spec, place.item.blame
        yield Use(blame("base_model", "uri"), spec.base_model.uri)
        yield from (Use(_blamed(blame, field), uri) for field, uri in spec.base_model.part_fields)
        yield from (Use(blame("dataset", field.partition(".")[0]), uri) for field, uri in spec.dataset.uris)
        yield from (Use(blame("adapter", "start"), uri) for _, uri in starts.read(spec))
        yield from (Use(blame("output", "merge"), uri) for uri in spec.output.merged_with)
        if spec.output.uri is not None:
            yield Use(blame("output", "uri"), spec.output.uri, write=True)


def _blamed(blame: Callable[[str, str], str], field: str) -> str:
    """`field`: vae_uri, or parts.NAME, whose mistakes are the whole field's to mend."""
    name, _, part = field.partition(".")
    return ".".join(filter(None, (blame("base_model", name), part)))


def _of_start(place: ItemJob, error: LorafleetError) -> Iterator[Violation]:
    """Why an item has nothing to go on from, where that is to be mended."""
    if isinstance(error, InvalidSpec):
        for each in error.violations:
            section, _, name = each.field.partition(".")
            yield Violation(field=place.item.blame(section, name), message=each.message)
    elif (start := place.item.spec.adapter.start) is not None:
        where = starts.field(start).rpartition(".")[2]
        yield Violation(field=f"{place.item.blame('adapter', 'start')}.{where}", message=error.message.partition(": ")[2])


def _refuse(violations: Sequence[Violation]) -> None:
    if violations:
        raise InvalidSpec(violations)


def _rows(new: NewBatch, batch_id: str, digest: str, places: Sequence[ItemJob]) -> tuple[BatchRow, list[JobRow]]:
    batch = BatchRow(
        uid=uuid4().hex,
        tenant=new.tenant,
        batch_id=batch_id,
        num_jobs=len(places),
        request_id=new.request_id or None,
        body_sha256=digest,
    )
    return batch, [_row(batch, place, new.created_by) for place in places]


def _row(batch: BatchRow, place: ItemJob, created_by: str) -> JobRow:
    row = new_row(batch.tenant, place.job_id, place.item.spec, place.item.stored, place.output_uri, created_by)
    row.batch_uid, row.batch_id, row.batch_index = batch.uid, batch.batch_id, place.item.index
    return row
