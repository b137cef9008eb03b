"""Writes new jobs. The calls of a tenant that wait at the same time share a transaction (service/core/group_commit.py); within it each
finds what those before it did, as if it had come after them."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lorafleet import spec_proto, work
from lorafleet.errors import AlreadyExists, InvalidSpec, LorafleetError, Violation
from lorafleet.spec import Spec
from lorafleet.v1 import training_service_pb2 as pb
from service.db import attempts, audit, events, jobs, quotas, requests
from service.db.database import Database
from service.db.errors import Contended
from service.db.models import JobRow
from service.db.transaction import Transaction
from service.jobs import starts
from service.jobs.messages import job_message
from service.tenancy import allowances
from service.tenancy.allowances import Allowance


class AllowanceChanged(Contended):
    """The job was checked by what its tenant was allowed then."""


@dataclass(frozen=True, kw_only=True)
class New(ABC):
    """What tells a request for a job, or other work, from others. An empty `job_id` is chosen here; an empty `request_id` makes repeats new
    jobs."""

    tenant: str
    job_id: str
    request_id: str
    created_by: str = ""

    @property
    @abstractmethod
    def body(self) -> dict[str, Any]:
        """What is asked for, and the id."""

    @cached_property
    def body_sha256(self) -> str:
        """Equal for equal requests: the spec with its defaults filled in, and the id asked for."""
        return hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NewJob(New):
    """A job to create."""

    spec: Spec
    asked: Spec | None = None  # as it was sent, where the service has filled in what it names

    @cached_property
    def stored_spec(self) -> dict[str, Any]:
        """As plain values."""
        return self.spec.model_dump(mode="json")

    @property
    def body(self) -> dict[str, Any]:
        asked = self.stored_spec if self.asked is None else self.asked.model_dump(mode="json")
        return {"job_id": self.job_id, "spec": asked}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A job that passed every check outside the database, by what its tenant is allowed as far as that was known, and the audit log's
    entry of the call that asks for it."""

    new: NewJob
    row: JobRow
    allowance: Allowance
    entry: audit.AuditEntry | None


@dataclass
class Existing:
    """What stands in the way of new jobs of one tenant: ids and folders in use, and requests that were answered."""

    answered: dict[str, requests.Answered]
    job_ids: set[str]
    writers: dict[str, str] = field(default_factory=dict[str, str])  # names of unfinished jobs, by output root

    def answer(self, new: New) -> JobRow | None:
        """The job that this request made before. Raises AlreadyExists for another body, and for an id that is taken."""
        if (found := self.answered.get(new.request_id)) is not None:
            if found.body_sha256 != new.body_sha256:
                message = f"request_id {new.request_id} was used with another body; use a new UUID for a new job"
                raise AlreadyExists(message, reason="REQUEST_ID_REUSED")
            return found.job
        if new.job_id in self.job_ids:
            name = work.name_of(new.tenant, new.job_id)
            message = f"{name} exists; choose another id, or leave it empty to have one chosen"
            raise AlreadyExists(message, reason=f"{work.one_of(new.job_id).upper()}_ID_TAKEN")
        return None

    def check_output(self, row: JobRow) -> None:
        """Raises InvalidSpec when an unfinished job writes to the job's folder."""
        if (writer := self.writers.get(row.output_uri)) is not None:
            message = f"{writer} is writing to {row.output_uri}; choose another folder"
            raise InvalidSpec([Violation(field="output.uri", message=message)])

    def add(self, draft: Draft) -> None:
        """The job is accepted: those that come after it find it."""
        self.job_ids.add(draft.row.job_id)
        self.writers[draft.row.output_uri] = draft.row.name
        if draft.new.request_id:
            self.answered[draft.new.request_id] = requests.Answered(body_sha256=draft.new.body_sha256, job=draft.row)


async def answered(db: Database, new: NewJob) -> pb.TrainingJob | None:
    """The job that this request made before. Raises AlreadyExists for another body, and for an id that is taken."""
    async with db.snapshot() as tx:
        row = (await existing(tx, [new])).answer(new)
        return None if row is None else await _message(tx, row)


async def accept(db: Database, drafts: Sequence[Draft]) -> list[pb.TrainingJob | Exception]:
    """Writes these jobs of one tenant, in one transaction, and returns each as it was accepted; for what cannot be: AlreadyExists,
    InvalidSpec or QuotaExceeded, and AllowanceChanged or StartMoved for one that was checked by what no longer holds. A request that was
    answered before gets its job of then."""
    audit.current_entry.set(None)  # each draft has its call's
    async with db.transaction() as tx:
        news = [draft.new for draft in drafts]
        there = await existing(tx, news)
        there.writers = await jobs.writers(tx, [draft.row.output_uri for draft in drafts])
        room = await quotas.room(tx, news[0].tenant)
        allowance = await allowances.read(tx, news[0].tenant)
        moved = await starts.moved(tx, news[0].tenant, [(new.asked, new.spec) for new in news])
        accepted: list[Draft] = []
        found: list[JobRow | Exception] = []
        for draft, has_moved in zip(drafts, moved, strict=True):
            try:
                row = there.answer(draft.new)
                if row is None:
                    if draft.allowance != allowance:
                        raise AllowanceChanged("what the tenant is allowed changed meanwhile; try again")
                    if has_moved:
                        raise starts.StartMoved(starts.MOVED)
                    there.check_output(draft.row)
                    room.take()
                    there.add(draft)
                    accepted.append(draft)
                found.append(row or draft.row)
            except LorafleetError as error:
                found.append(error)
        fresh = await _insert(tx, accepted)
        return [each if isinstance(each, Exception) else fresh.get(each.uid) or await _message(tx, each) for each in found]


async def existing(tx: Transaction, news: Sequence[New]) -> Existing:
    """What there is of one tenant that these may meet."""
    tenant = news[0].tenant
    request_ids, job_ids = [new.request_id for new in news if new.request_id], [new.job_id for new in news if new.job_id]
    return Existing(
        answered=await requests.answered(tx, tenant, request_ids) if request_ids else {},
        job_ids=await jobs.ids_taken(tx, tenant, job_ids) if job_ids else set(),
    )


async def _insert(tx: Transaction, drafts: Sequence[Draft]) -> dict[str, pb.TrainingJob]:
    """What users see of them, by uid. What was stored a moment ago is not parsed again."""
    if not drafts:
        return {}
    rows = [draft.row for draft in drafts]
    await jobs.insert_rows(tx, rows)
    await requests.add(tx, {draft.new.request_id: (draft.new.body_sha256, draft.row) for draft in drafts if draft.new.request_id})
    for draft in drafts:
        if draft.entry is not None:
            draft.entry.resource = draft.row.name
    await audit.add_all(tx, [draft.entry for draft in drafts if draft.entry is not None])
    said = await events.append(tx, rows)  # last: it holds the row that all writers need
    messages = [pb.TrainingJob.FromString(payload) for payload in said]
    for draft, message in zip(drafts, messages, strict=True):
        message.spec.CopyFrom(spec_proto.to_proto(draft.new.spec))
    return {message.uid: message for message in messages}


async def _message(tx: Transaction, row: JobRow) -> pb.TrainingJob:
    """The job as users see it."""
    return job_message(row, await attempts.of_job(tx, row))
