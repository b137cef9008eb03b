"""Serves BatchService: each method checks the request, makes one call and returns. Errors are raised, never caught."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from lorafleet import spec_proto
from lorafleet.batch.items import MAX_ITEMS
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import batch_service_pb2_grpc as rpc
from service.access.authorization import Access
from service.access.identity import Identity, caller
from service.access.permissions import Permission
from service.api.errors import Context
from service.api.lists.batches import list_batch_jobs, list_batches
from service.api.options import MAX_RESPONSE_BYTES
from service.api.watch.batches import watch_batch
from service.api.watch.feed import Feed
from service.core.resource_names import check_batch_id, invalid, parse_batch, parse_request_id, parse_tenant
from service.db.database import Database
from service.db.retrying import again
from service.db.tenants import store_credentials_of
from service.jobs.batch_specs import NewBatch
from service.jobs.batches import Batches

MAX_BATCH_BYTES = 64 * 2**20  # of items; 10,000 rich specs are a quarter of it


class Plans(Protocol):
    """What makes packs of specs."""

    async def plan(self, tenant: str, specs: Sequence[Spec], store_credentials: str = "") -> pb.PlanBatchResponse:
        """The packs that such jobs would train as on an idle service. Raises InvalidSpec."""
        ...


class BatchServicer(rpc.BatchServiceServicer):
    """The public API of batches."""

    def __init__(self, access: Access, db: Database, batches: Batches, planner: Plans, feed: Feed) -> None:
        self._access = access
        self._db = db
        self._batches = batches
        self._planner = planner
        self._feed = feed

    async def CreateBatch(self, request_iterator: AsyncIterator[pb.CreateBatchRequest], context: Context) -> pb.Batch:
        header, items = await _received(request_iterator, self._may_submit)
        new = _new(header, items, caller())
        return await again(lambda: self._batches.create(new, validate_only=header.validate_only))

    async def PlanBatch(self, request_iterator: AsyncIterator[pb.PlanBatchRequest], context: Context) -> pb.PlanBatchResponse:
        header, items = await _received(request_iterator, self._may_submit)
        new = _new(header, items, caller())
        specs = await self._batches.specs(new)
        plan = await self._planner.plan(new.tenant, specs, await store_credentials_of(self._db, new.tenant))
        if plan.ByteSize() > MAX_RESPONSE_BYTES:
            message = f"lead to a plan of {plan.ByteSize() // 2**20 + 1} MiB, more than an answer holds; plan some thousand at a time"
            raise invalid("items", message, reason="PLAN_TOO_LARGE")
        return plan

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.Batch:
        name = parse_batch(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        return await self._batches.get(name)

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        await self._access.require(Permission.VIEW, parse_tenant(request.parent))
        return await list_batches(self._db, request)

    async def ListBatchJobs(self, request: pb.ListBatchJobsRequest, context: Context) -> pb.ListBatchJobsResponse:
        await self._access.require(Permission.VIEW, parse_batch(request.parent, "parent").tenant)
        return await list_batch_jobs(self._db, request)

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Context) -> AsyncIterator[pb.WatchBatchResponse]:
        name = parse_batch(request.name)
        await self._access.require(Permission.VIEW, name.tenant)
        async with aclosing(watch_batch(self._db, name, request.resume_token, self._feed)) as events:
            async for event in events:
                await self._access.require(Permission.VIEW, name.tenant)  # removed members stop watching
                yield event

    async def CancelBatch(self, request: pb.CancelBatchRequest, context: Context) -> pb.Batch:
        name = parse_batch(request.name)
        who = await self._access.require(Permission.SUBMIT, name.tenant)
        return await self._batches.cancel(name, request.etag, caller=who)

    async def RetryFailed(self, request: pb.RetryFailedRequest, context: Context) -> pb.Batch:
        name = parse_batch(request.name)
        who = await self._access.require(Permission.SUBMIT, name.tenant)
        return await self._batches.retry_failed(name, request.etag, caller=who)

    async def _may_submit(self, header: pb.BatchHeader) -> None:
        await self._access.require(Permission.SUBMIT, parse_tenant(header.parent))


async def _received(
    parts: AsyncIterator[pb.CreateBatchRequest] | AsyncIterator[pb.PlanBatchRequest], check: Callable[[pb.BatchHeader], Awaitable[None]]
) -> tuple[pb.BatchHeader, list[pb.BatchItem]]:
    """The header and the items; `check` sees the header before any item is taken in.

    Raises InvalidInput at the first part that is too much: a caller may send without end.
    """
    header: pb.BatchHeader | None = None
    items: list[pb.BatchItem] = []
    size_bytes = 0
    async for part in parts:
        if part.HasField("header") != (header is None):
            raise invalid("header", "must be in the first message, and in no other")
        if part.HasField("header"):
            header = part.header
            await check(header)
        items.extend(part.items.items)
        size_bytes += part.ByteSize()
        if len(items) > MAX_ITEMS:
            raise invalid("items", f"are more than {MAX_ITEMS:,}, which is what a batch holds; make two of it", reason="BATCH_TOO_LARGE")
        if size_bytes > MAX_BATCH_BYTES:
            message = f"take more than {MAX_BATCH_BYTES // 2**20} MiB; put what they share into the defaults, or make two batches of it"
            raise invalid("items", message, reason="BATCH_TOO_LARGE")
    if header is None:
        raise invalid("header", "must be in the first message")
    return header, items


def _new(header: pb.BatchHeader, items: list[pb.BatchItem], who: Identity) -> NewBatch:
    return NewBatch(
        tenant=parse_tenant(header.parent),
        batch_id=check_batch_id(header.batch_id, "batch_id") if header.batch_id else "",
        request_id=parse_request_id(header.request_id),
        defaults=spec_proto.fields(header.defaults),
        items=items,
        created_by=who.principal,
    )
