"""Serves TrainingService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lorafleet import spec_proto
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.job_logs import LogStream
from service.api.lists.jobs import list_jobs
from service.api.signing import sign_artifact
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import scope_of
from service.backends.base import Backend
from service.core.resource_names import check_job_id, invalid, parse_job, parse_request_id, parse_tenant
from service.db.database import Database
from service.jobs.creation import NewJob
from service.jobs.jobs import Jobs
from service.store.client import Store
from service.untrusted.parsing import Parser


class TrainingServicer(rpc.TrainingServiceServicer):
    """The public API."""

    def __init__(self, access: Access, db: Database, jobs: Jobs, backend: Backend, store: Store, feed: Feed) -> None:
        self._access = access
        self._db = db
        self._jobs = jobs
        self._backend = backend
        self._store = store
        self._feed = feed
        self._parser = Parser()

    async def CreateTrainingJob(self, request: pb.CreateTrainingJobRequest, context: Context) -> pb.TrainingJob:
        tenant = parse_tenant(request.parent)
        caller = await self._access.require(Permission.SUBMIT, tenant)
        new = NewJob(
            tenant=tenant,
            job_id=check_job_id(request.training_job_id) if request.training_job_id else "",
            request_id=parse_request_id(request.request_id),
            spec=spec_proto.from_proto(request.training_job.spec),
            created_by=caller.principal,
        )
        return await self._jobs.create(new, validate_only=request.validate_only)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> pb.TrainingJob:
        name = parse_job(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await self._jobs.get(name)

    async def ListTrainingJobs(self, request: pb.ListTrainingJobsRequest, context: Context) -> pb.ListTrainingJobsResponse:
        await self._access.require(Permission.VIEW, parse_tenant(request.parent))
        return await list_jobs(self._db, request)

    async def CancelTrainingJob(self, request: pb.CancelTrainingJobRequest, context: Context) -> pb.TrainingJob:
        name = parse_job(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.tenant)
        return await self._jobs.cancel(name, request.etag, caller=caller)

    async def WatchTrainingJobs(
        self, request: pb.WatchTrainingJobsRequest, context: Context
    ) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        scope = scope_of(request)
        await self._access.require(Permission.VIEW, scope.tenant)
        watch = Watch(db=self._db, scope=scope, feed=self._feed)
        async with aclosing(watch.events(request.resume_token)) as events:
            async for event in events:
                await self._access.require(Permission.VIEW, scope.tenant)  # removed members stop watching
                yield event

    async def StreamTrainingJobLogs(
        self, request: pb.StreamTrainingJobLogsRequest, context: Context
    ) -> AsyncIterator[pb.StreamTrainingJobLogsResponse]:
        name = parse_job(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        if request.attempt < 0:
            raise invalid("attempt", "is negative")
        stream = LogStream(db=self._db, backend=self._backend, store=self._store, stopping=self._feed.stopping)
        async with aclosing(stream.pieces(name, attempt=request.attempt, follow=request.follow)) as pieces:
            async for piece in pieces:
                await self._access.require(Permission.VIEW, name.tenant)
                yield piece

    async def SignArtifact(self, request: pb.SignArtifactRequest, context: Context) -> pb.SignArtifactResponse:
        name = parse_job(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await sign_artifact(self._db, self._store, name, request.expire_s, self._parser)
