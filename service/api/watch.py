"""WatchTrainingJobs: a snapshot, then every change in commit order, with heartbeats between; resumable by token."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement

from lorafleet.errors import InvalidInput, NotFound, TokenExpired, Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.api import opaque
from service.bell import heard
from service.db import attempts, batches, events, job_pages, jobs
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobEventRow, JobRow
from service.db.transaction import Transaction
from service.names import invalid, parse_job, parse_tenant
from service.resources import add_spec, job_message

HEARTBEAT_S = 5.0
POLL_S = 1.0  # another process may write to the same database, and rings no bell here
BATCH = 100


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is watched."""

    tenant: str
    job_id: str = ""
    batch_uid: str = ""


@dataclass
class Watch:
    """One watcher. `seen` holds the versions that the snapshot has shown, until the events have caught up with it."""

    db: Database
    scope: Scope
    stopping: asyncio.Event
    instance: str = ""
    seq: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    seen_until: int = 0

    async def events(self, resume_token: str) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        """Without end. Raises TokenExpired, InvalidInput, NotFound, and Unavailable when the server stops."""
        async for events_of_a_moment in self.moments(resume_token):
            for event in events_of_a_moment:
                yield event

    async def moments(self, resume_token: str) -> AsyncIterator[Sequence[pb.WatchTrainingJobsResponse]]:
        """The same events, those together that were read together; a heartbeat is alone."""
        if await self._begin(resume_token):
            async for page in self._snapshot():
                yield page
            yield [self._heartbeat()]
        quiet_s = 0.0
        while True:
            ring = self.db.bell.listen()
            news = await self._next()
            if news:
                yield news
            if self.stopping.is_set():
                raise Unavailable("the server is stopping; resume with the last token", reason="SERVER_STOPPING")
            if not news:
                quiet_s = 0.0 if await heard(ring, POLL_S) else quiet_s + POLL_S
            if quiet_s >= HEARTBEAT_S:
                quiet_s = 0.0
                yield [self._heartbeat()]

    async def _begin(self, token: str) -> bool:
        """Where to go on. True: with a snapshot."""
        async with self.db.snapshot() as tx:
            service = await events.service(tx)
            if self.scope.job_id and await jobs.by_name(tx, self.scope.tenant, self.scope.job_id) is None:
                raise NotFound(f"there is no job tenants/{self.scope.tenant}/jobs/{self.scope.job_id}", reason="JOB_NOT_FOUND")
        self.instance, self.seq = service.instance, service.last_seq
        if not token:
            return True
        values = self._values(token)
        if values["instance"] != service.instance or not service.floor_seq <= values["seq"] <= service.last_seq:
            raise TokenExpired("the resume token is too old; begin anew without it", reason="RESUME_TOKEN_EXPIRED")
        self.seq = values["seq"]
        return values["snapshot"]

    async def _snapshot(self) -> AsyncIterator[Sequence[pb.WatchTrainingJobsResponse]]:
        behind: JobRow | None = None
        from_start = self._token(snapshot=True)  # a half-read snapshot cannot be gone on with
        while True:
            async with self.db.snapshot() as tx:
                rows = await self._page(tx, behind)
                runs = await attempts.of_jobs(tx, [row.uid for row in rows])
                self.seen_until = (await events.service(tx)).last_seq
            if not rows:
                return
            self.seen |= {row.uid: row.version for row in rows}
            yield [
                pb.WatchTrainingJobsResponse(training_job=job_message(row, runs[row.uid]), resume_token=from_start, snapshot=True)
                for row in rows
            ]
            behind = rows[-1]

    async def _page(self, tx: Transaction, behind: JobRow | None) -> Sequence[JobRow]:
        """Oldest first; a batch's in the order of its items."""
        scope = self.scope
        if scope.batch_uid:
            index = -1 if behind is None or behind.batch_index is None else behind.batch_index
            return await batches.jobs_page(tx, scope.batch_uid, behind=index, size=BATCH)
        only = [JobRow.job_id == scope.job_id] if scope.job_id else []
        key = None if behind is None else PageKey(behind.create_time, behind.uid)
        return await job_pages.page(tx, scope.tenant, only, newest_first=False, behind=key, size=BATCH)

    async def _next(self) -> list[pb.WatchTrainingJobsResponse]:
        async with self.db.snapshot() as tx:
            found = await events.after(tx, self.seq, *self._which(), limit=BATCH)
            last_seq = (await events.service(tx)).last_seq
            floor_seq = (await events.service(tx)).floor_seq
        if self.seq < floor_seq:
            raise TokenExpired("the watch has fallen too far behind; begin anew without token", reason="RESUME_TOKEN_EXPIRED")
        answer = [self._response(event, job) for event, job in found if event.version > self.seen.get(event.job_uid, 0)]
        self.seq = found[-1][0].seq if len(found) == BATCH else last_seq
        if self.seq >= self.seen_until:
            self.seen.clear()
        return answer

    def _which(self) -> list[ColumnElement[bool]]:
        which = [JobEventRow.tenant == self.scope.tenant]
        if self.scope.batch_uid:
            which.append(JobRow.batch_uid == self.scope.batch_uid)
        if self.scope.job_id:
            which.append(JobRow.job_id == self.scope.job_id)
        return which

    def _response(self, event: JobEventRow, job: JobRow) -> pb.WatchTrainingJobsResponse:
        message = pb.TrainingJob.FromString(event.payload)
        add_spec(message, job)
        return pb.WatchTrainingJobsResponse(training_job=message, resume_token=self._token(seq=event.seq))

    def _heartbeat(self) -> pb.WatchTrainingJobsResponse:
        return pb.WatchTrainingJobsResponse(resume_token=self._token())

    def _token(self, *, seq: int | None = None, snapshot: bool = False) -> str:
        place = {"instance": self.instance, "seq": self.seq if seq is None else seq, "snapshot": snapshot}
        return opaque.pack({**place, **self._scope_values()})

    def _scope_values(self) -> dict[str, str]:
        batch = {"batch": self.scope.batch_uid} if self.scope.batch_uid else {}  # other tokens stay as they always were
        return {"tenant": self.scope.tenant, "job": self.scope.job_id, **batch}

    def _values(self, token: str) -> dict:
        try:
            values = opaque.unpack(token)
        except opaque.BadToken:
            raise _bad_token("is not one that this service gave") from None
        if {name: value for name, value in values.items() if name in {"tenant", "job", "batch"}} != self._scope_values():
            raise _bad_token("belongs to another watch")
        return values


def scope_of(request: pb.WatchTrainingJobsRequest) -> Scope:
    """What a request watches. Raises InvalidInput."""
    tenant = parse_tenant(request.parent)
    if not request.name:
        return Scope(tenant=tenant)
    name = parse_job(request.name)
    if name.tenant != tenant:
        raise invalid("name", f"is not a job of {request.parent}")
    return Scope(tenant=tenant, job_id=name.job_id)


def _bad_token(problem: str) -> InvalidInput:
    return invalid("resume_token", problem, reason="BAD_RESUME_TOKEN")
