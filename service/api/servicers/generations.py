"""Serves GenerationService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from lorafleet import generation_proto, work
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.v1 import generation_service_pb2_grpc as rpc
from lorafleet.work.generation import KIND
from service.access.authorization import Access
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists.generations import list_generations
from service.api.signing import sign_artifact
from service.api.watch.feed import Feed
from service.api.watch.jobs import Watch
from service.api.watch.resume_tokens import Scope
from service.core.resource_names import check_job_id, invalid, parse_generation, parse_request_id, parse_tenant
from service.db.database import Database
from service.db.retrying import again
from service.generations.creation import Generations, NewGeneration
from service.jobs.jobs import Jobs
from service.store.client import Store
from service.untrusted.parsing import Parser


class GenerationServicer(rpc.GenerationServiceServicer):
    """The public API of generations. What is there is read and cancelled as jobs are."""

    def __init__(self, access: Access, db: Database, jobs: Jobs, generations: Generations, store: Store, feed: Feed) -> None:
        self._access = access
        self._db = db
        self._jobs = jobs
        self._generations = generations
        self._store = store
        self._feed = feed
        self._parser = Parser()

    async def CreateGeneration(self, request: pb.CreateGenerationRequest, context: Context) -> pb.Generation:
        tenant = parse_tenant(request.parent)
        caller = await self._access.require(Permission.SUBMIT, tenant)
        own_id = check_job_id(request.generation_id, "generation_id") if request.generation_id else ""
        new = NewGeneration(
            tenant=tenant,
            job_id=work.id_in(KIND.collection, own_id) if own_id else "",
            request_id=parse_request_id(request.request_id),
            spec=await asyncio.to_thread(generation_proto.from_proto, request.generation.spec),  # it may name thousands of sets
            created_by=caller.principal,
        )
        return await again(lambda: self._generations.create(new, validate_only=request.validate_only))

    async def GetGeneration(self, request: pb.GetGenerationRequest, context: Context) -> pb.Generation:
        name = parse_generation(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await self._jobs.get(name)

    async def ListGenerations(self, request: pb.ListGenerationsRequest, context: Context) -> pb.ListGenerationsResponse:
        await self._access.require(Permission.VIEW, parse_tenant(request.parent))
        return await list_generations(self._db, request)

    async def CancelGeneration(self, request: pb.CancelGenerationRequest, context: Context) -> pb.Generation:
        name = parse_generation(request.name)
        caller = await self._access.require(Permission.SUBMIT, name.tenant)
        return await again(lambda: self._jobs.cancel(name, request.etag, caller=caller))

    async def WatchGenerations(self, request: pb.WatchGenerationsRequest, context: Context) -> AsyncIterator[pb.WatchGenerationsResponse]:
        scope = _scope_of(request)
        await self._access.require(Permission.VIEW, scope.tenant)
        watch = Watch(db=self._db, scope=scope, feed=self._feed)
        async with aclosing(watch.events(request.resume_token)) as events:
            async for event in events:
                await self._access.require(Permission.VIEW, scope.tenant)  # removed members stop watching
                yield event

    async def SignGeneration(self, request: pb.SignGenerationRequest, context: Context) -> pb.SignGenerationResponse:
        name = parse_generation(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        signed = await sign_artifact(self._db, self._store, name, request.expire_s, self._parser)
        return pb.SignGenerationResponse(files=signed.files, manifest_sha256=signed.manifest_sha256, expire_time=signed.expire_time)


def _scope_of(request: pb.WatchGenerationsRequest) -> Scope:
    """What a request watches. Raises InvalidInput."""
    tenant = parse_tenant(request.parent)
    if not request.name:
        return Scope(tenant=tenant, kind=KIND.name)
    name = parse_generation(request.name)
    if name.tenant != tenant:
        raise invalid("name", f"is not a generation of {request.parent}")
    return Scope(tenant=tenant, job_id=name.job_id, kind=KIND.name)
