"""Prepares queued jobs for the planner. A spec never changes, so each is parsed once and remembered while its job lives here."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from lorafleet import work
from lorafleet.errors import InvalidInput
from lorafleet.work import TRAINING
from service.control.admission import Wait, WaitReason
from service.control.packing import Candidate, Refusal, Sharing
from service.core.concurrency import slices
from service.db import queue, row_faults, tenants
from service.db.database import Database
from service.db.models import JobRow
from service.db.queue import WaitingJob
from service.planning.planner import Planner, base_in, base_of

MOST_REMEMBERED = 50_000
SLICE = 200  # specs parsed in one go, away from the event loop
HURRY_S = 0.25  # that a round of admission waits for bases not seen before; jobs whose base takes longer are not in it
_MOST_ITEMS = 2**14  # more than a batch holds


READING = Wait(reason=WaitReason.READING_BASE, message="the headers of its base model are being read; others do not wait for that")


@dataclass(frozen=True, kw_only=True)
class Queued:
    """The jobs that could start now: candidates, those that wait for something of their own, and those whose specs are no more."""

    candidates: Sequence[Candidate] = ()
    waits: Mapping[str, Wait] = field(default_factory=dict[str, Wait])
    refusals: Sequence[Refusal] = ()


class Candidates:
    """Reads the queue for the planner."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self._known: dict[str, Candidate] = {}
        self._aside: dict[str, Wait | Refusal] = {}  # jobs that nothing can be decided on, and what becomes of them
        # What tenants are set up as, as of the last look at the queue.
        self._isolated: frozenset[str] = frozenset()
        self._store_credentials: dict[str, str] = {}

    @property
    def num_late(self) -> int:
        """Changes when something is known of the queue that was waited for: it is worth another round."""
        return self.planner.shapes.num_late

    async def of_queue(self, db: Database) -> Queued:
        """All jobs that could start now. Asks the store about bases not seen before, so not inside a transaction."""
        async with db.snapshot() as tx:
            waiting = await queue.waiting(tx)
            again = [job.uid for job in waiting if job.first_step_time is not None]
            company = await queue.had_company(tx, again)
            self._isolated = await tenants.isolated(tx)
            self._store_credentials = await tenants.store_credentials(tx)
            specs = await queue.specs(tx, [job.uid for job in waiting if not self._is_known(job.uid)])
        await self._learn(waiting, specs)
        return self._queued(waiting, company)

    def _queued(self, waiting: Sequence[WaitingJob], company: set[str]) -> Queued:
        known = [job for job in waiting if job.uid in self._known]
        trained = [job for job in known if job.kind == TRAINING]  # others ask for no memory that follows from shapes of the base
        unfit = {job.uid: why for job in trained if (why := self._unfit(self._known[job.uid])) is not None}
        awaited = {job.uid for job in trained if self._is_awaited(self._known[job.uid])}
        aside = {job.uid: self._aside[job.uid] for job in waiting if job.uid in self._aside} if self._aside else {}
        return Queued(
            candidates=[self._as_it_began(job, company) for job in known if not any(job.uid in some for some in (awaited, unfit, aside))],
            waits={**dict.fromkeys(awaited, READING), **{uid: why for uid, why in aside.items() if isinstance(why, Wait)}},
            refusals=[
                *(why for uid, why in unfit.items() if uid not in aside),
                *(why for why in aside.values() if isinstance(why, Refusal)),
            ],
        )

    def set_aside(self, uid: str, error: Exception) -> Wait:
        """Nothing can be decided on the job: it waits, and says why, until another server looks at it."""
        wait = self._aside[uid] = Wait(reason=WaitReason.ROW_ERROR, message=f"it cannot be admitted: {row_faults.told(error)}")
        return wait

    def _unfit(self, job: Candidate) -> Refusal | None:
        return self.planner.unfit(job, self._reference(job.tenant))

    def _is_awaited(self, job: Candidate) -> bool:
        return job.footprint is None and self.planner.shapes.is_awaited(base_in(job.key.warm, self._reference(job.tenant)))

    def of_row(self, row: JobRow) -> Candidate:
        """A job that is in a run."""
        if not self._is_known(row.uid):
            self._remember(_of_row(row), work.of(row.kind).parse(row.spec))
        return self._as_its_tenant(self._known[row.uid])

    async def _learn(self, waiting: Sequence[WaitingJob], specs: dict[str, dict[str, Any]]) -> None:
        if len(self._known) + len(self._aside) > MOST_REMEMBERED:
            kept = {job.uid for job in waiting}
            self._known = {uid: job for uid, job in self._known.items() if uid in kept}
            self._aside = {uid: why for uid, why in self._aside.items() if uid in kept}
        new = [job for job in waiting if job.uid in specs]
        parsed: dict[str, Any] = {}
        for some in slices(new, SLICE):
            parsed |= await asyncio.to_thread(self._parse_all, some, specs)
        trained = [job for job in new if job.kind == TRAINING and job.uid in parsed]
        bases = {(job.tenant, base_of(parsed[job.uid], self._reference(job.tenant))) for job in trained}
        await self.planner.shapes.read(bases, HURRY_S)
        for some in slices([job for job in new if job.uid in parsed], SLICE):
            await asyncio.to_thread(self._remember_all, some, parsed)

    def _parse_all(self, some: Sequence[WaitingJob], specs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """A spec that this server has accepted once may be none to it any more, or be of a newer server."""
        parsed: dict[str, Any] = {}
        for job in some:
            with row_faults.own("admit", job.uid) as trouble:
                parsed[job.uid] = work.of(job.kind).parse(specs[job.uid])
            if trouble.error:
                self._aside[job.uid] = _unreadable(job.uid, trouble.error)
        return parsed

    def _remember_all(self, some: Sequence[WaitingJob], parsed: Mapping[str, Any]) -> None:
        for job in some:
            self._remember(job, parsed[job.uid])

    def _remember(self, job: WaitingJob, parsed: Any) -> None:
        order, reference = _order(job.create_time, job.batch_index), self._reference(job.tenant)
        make = self.planner.candidate if job.kind == TRAINING else partial(self.planner.other_candidate, kind=job.kind)
        submitted_s = job.create_time.timestamp()
        self._known[job.uid] = make(job.uid, job.tenant, spec=parsed, order=order, submitted_s=submitted_s, store_credentials=reference)

    def _is_known(self, uid: str) -> bool:
        """False again once the shapes of its base, unknown before, have been read."""
        if uid in self._aside:
            return True
        job = self._known.get(uid)
        if job is None or job.footprint is not None or job.key.warm.kind != TRAINING:
            return job is not None
        return self.planner.shapes.known(base_in(job.key.warm, self._reference(job.tenant))) is None

    def _reference(self, tenant: str) -> str:
        return self._store_credentials.get(tenant, "")

    def _as_it_began(self, job: WaitingJob, company: set[str]) -> Candidate:
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


def _of_row(row: JobRow) -> WaitingJob:
    times = (row.create_time, row.batch_index, row.attempt, row.first_step_time)
    return WaitingJob(row.uid, row.kind, row.tenant, *times)


def _order(create_time: datetime, batch_index: int | None) -> int:
    """By age; the items of a batch are of one age, and come in their order."""
    return int(create_time.timestamp() * 1_000_000) * _MOST_ITEMS + (batch_index or 0)


def _unreadable(uid: str, error: Exception) -> Wait | Refusal:
    """While servers are replaced one by one, an older one meets fields and kinds of work that it does not know, and the newer ones do:
    it lets such a job wait. Nothing else about a spec gets better."""
    is_newer = isinstance(error, InvalidInput) and any(each.message.startswith("unknown field") for each in error.violations)
    if is_newer or isinstance(error, ModuleNotFoundError):
        message = f"this server cannot read its spec, which may be a newer server's: {row_faults.told(error)}"
        return Wait(reason=WaitReason.SPEC_UNREADABLE, message=message)
    message = f"its spec cannot be read any more: {row_faults.told(error)}; submit the job again"
    return Refusal(uid=uid, reason=WaitReason.SPEC_UNREADABLE, message=message)
