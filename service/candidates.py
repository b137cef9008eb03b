"""Queued jobs as the planner sees them. A spec never changes, so each is parsed once and remembered while its job lives here."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from lorafleet import spec
from service.concurrency import slices
from service.control.packing import Candidate, Sharing
from service.db import queue, tenants
from service.db.database import Database
from service.db.models import JobRow
from service.db.queue import Waiting
from service.plans import Planner

MOST_REMEMBERED = 50_000
SLICE = 200  # specs parsed in one go, away from the event loop
_MOST_ITEMS = 2**14  # more than a batch holds


class Candidates:
    """Reads the queue for the planner."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self._known: dict[str, Candidate] = {}
        # What tenants are set up as, as of the last look at the queue.
        self._isolated: frozenset[str] = frozenset()
        self._store_credentials: dict[str, str] = {}

    async def of_queue(self, db: Database) -> list[Candidate]:
        """All jobs that could start now. Asks the store about bases not seen before, so not inside a transaction."""
        async with db.snapshot() as tx:
            waiting = await queue.waiting(tx)
            again = [job.uid for job in waiting if job.first_step_time is not None]
            company = await queue.had_company(tx, again)
            self._isolated = await tenants.isolated(tx)
            self._store_credentials = await tenants.store_credentials(tx)
            specs = await queue.specs(tx, [job.uid for job in waiting if not self._is_known(job.uid)])
        await self._learn(waiting, specs)
        return [self._as_it_began(job, company) for job in waiting]

    def of_row(self, row: JobRow) -> Candidate:
        """A job that is in a run."""
        if not self._is_known(row.uid):
            self._remember(_order(row.create_time, row.batch_index), row.create_time, row.uid, row.tenant, row.spec)
        return self._as_its_tenant(self._known[row.uid])

    async def _learn(self, waiting: Sequence[Waiting], specs: dict[str, dict[str, Any]]) -> None:
        if len(self._known) > MOST_REMEMBERED:
            kept = {job.uid for job in waiting}
            self._known = {uid: job for uid, job in self._known.items() if uid in kept}
        new = [job for job in waiting if job.uid in specs]
        await self.planner.shapes.read({(specs[job.uid]["base_model"]["uri"], self._reference(job.tenant)) for job in new})
        for some in slices(new, SLICE):
            await asyncio.to_thread(self._remember_all, some, specs)

    def _remember_all(self, some: Sequence[Waiting], specs: dict[str, dict[str, Any]]) -> None:
        for job in some:
            self._remember(_order(job.create_time, job.batch_index), job.create_time, job.uid, job.tenant, specs[job.uid])

    def _remember(self, order: int, create_time: datetime, uid: str, tenant: str, fields: dict[str, Any]) -> None:
        parsed = spec.parse(fields)
        self._known[uid] = self.planner.candidate(
            uid, tenant, parsed, order=order, submitted_s=create_time.timestamp(), store_credentials=self._reference(tenant)
        )

    def _is_known(self, uid: str) -> bool:
        """False again once the shapes of its base, unknown before, have been read."""
        job = self._known.get(uid)
        if job is None or job.footprint is not None:
            return job is not None
        return self.planner.shapes.known(job.key.warm.base_uri, self._reference(job.tenant)) is None

    def _reference(self, tenant: str) -> str:
        return self._store_credentials.get(tenant, "")

    def _as_it_began(self, job: Waiting, company: set[str]) -> Candidate:
        """A style that has trained alone goes on alone: in company its numbers would change in their last bits."""
        known = self._as_its_tenant(self._known[job.uid])
        began_alone = job.first_step_time is not None and job.uid not in company
        return replace(known, alone="an earlier attempt of it trained alone") if began_alone and not known.alone else known

    def _as_its_tenant(self, known: Candidate) -> Candidate:
        """What a tenant is set up as may change while its jobs wait: it is laid over what is remembered of them."""
        reference = self._reference(known.tenant)
        if known.sharing is Sharing.ANYONE and (reference or known.tenant in self._isolated):
            known = replace(known, sharing=Sharing.TENANT)
        return with_credentials(known, reference)


def with_credentials(known: Candidate, reference: str) -> Candidate:
    """The job as one that is to train with these store credentials."""
    if known.key.warm.store_credentials == reference:
        return known
    return replace(known, key=replace(known.key, warm=replace(known.key.warm, store_credentials=reference)))


def _order(create_time: datetime, batch_index: int | None) -> int:
    """By age; the items of a batch are of one age, and come in their order."""
    return int(create_time.timestamp() * 1_000_000) * _MOST_ITEMS + (batch_index or 0)
