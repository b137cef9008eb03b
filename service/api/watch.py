"""WatchTrainingJobs: a snapshot, then every change in commit order, with heartbeats between; resumable by token."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement

from lorafleet.errors import InvalidInput, NotFound, TokenExpired, Unavailable
from lorafleet.v1 import training_service_pb2 as pb
from service.api import opaque
from service.bell import heard
from service.db import attempts, events, job_pages, jobs
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobEventRow, JobRow
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
        if await self._begin(resume_token):
            async for event in self._snapshot():
                yield event
            yield self._heartbeat()
        quiet_s = 0.0
        while True:
            ring = self.db.bell.listen()
            batch = await self._next()
            for event in batch:
                yield event
            if self.stopping.is_set():
                raise Unavailable("the server is stopping; resume with the last token", reason="SERVER_STOPPING")
            if not batch:
                quiet_s = 0.0 if await heard(ring, POLL_S) else quiet_s + POLL_S
            if quiet_s >= HEARTBEAT_S:
                quiet_s = 0.0
                yield self._heartbeat()

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

    async def _snapshot(self) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        behind: PageKey | None = None
        from_start = self._token(snapshot=True)  # a half-read snapshot cannot be gone on with
        while True:
            async with self.db.snapshot() as tx:
                only = [JobRow.job_id == self.scope.job_id] if self.scope.job_id else []
                rows = await job_pages.page(tx, self.scope.tenant, only, newest_first=False, behind=behind, size=BATCH)
                runs = await attempts.of_jobs(tx, [row.uid for row in rows])
                self.seen_until = (await events.service(tx)).last_seq
            for row in rows:
                self.seen[row.uid] = row.version
                yield pb.WatchTrainingJobsResponse(training_job=job_message(row, runs[row.uid]), resume_token=from_start, snapshot=True)
            if len(rows) < BATCH:
                return
            behind = PageKey(rows[-1].create_time, rows[-1].uid)

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
        return [*which, JobRow.job_id == self.scope.job_id] if self.scope.job_id else which

    def _response(self, event: JobEventRow, job: JobRow) -> pb.WatchTrainingJobsResponse:
        message = pb.TrainingJob.FromString(event.payload)
        add_spec(message, job)
        return pb.WatchTrainingJobsResponse(training_job=message, resume_token=self._token(seq=event.seq))

    def _heartbeat(self) -> pb.WatchTrainingJobsResponse:
        return pb.WatchTrainingJobsResponse(resume_token=self._token())

    def _token(self, *, seq: int | None = None, snapshot: bool = False) -> str:
        place = {"instance": self.instance, "seq": self.seq if seq is None else seq, "snapshot": snapshot}
        return opaque.pack({**place, "tenant": self.scope.tenant, "job": self.scope.job_id})

    def _values(self, token: str) -> dict:
        try:
            values = opaque.unpack(token)
        except opaque.BadToken:
            raise _bad_token("is not one that this service gave") from None
        if (values.get("tenant"), values.get("job")) != (self.scope.tenant, self.scope.job_id):
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
