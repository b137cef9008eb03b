"""BatchService: each method checks what came in, makes one call, and answers. Errors are raised, never caught."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from lorafleet import spec_proto
from lorafleet.batch_items import MAX_ITEMS
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import batch_service_pb2_grpc as rpc
from service.api.batch_listing import list_batch_jobs, list_batches
from service.api.batch_watch import watch_batch
from service.api.errors import Context
from service.batch_specs import NewBatch
from service.batches import Batches
from service.db.database import Database
from service.names import check_batch_id, invalid, parse_batch, parse_request_id, parse_tenant

MAX_BATCH_BYTES = 64 * 2**20  # of items; 10,000 rich specs are a quarter of it


class Plans(Protocol):
    """What makes packs of specs."""

    async def plan(self, tenant: str, specs: Sequence[Spec]) -> pb.PlanBatchResponse:
        """The packs that such jobs would train as on an idle service. Raises InvalidSpec."""
        ...


class BatchServicer(rpc.BatchServiceServicer):
    """The public API of batches."""

    def __init__(self, db: Database, batches: Batches, planner: Plans, stopping: asyncio.Event) -> None:
        self._db = db
        self._batches = batches
        self._planner = planner
        self._stopping = stopping

    async def CreateBatch(self, request_iterator: AsyncIterator[pb.CreateBatchRequest], context: Context) -> pb.Batch:
        header, items = await _received(request_iterator)
        return await self._batches.create(_new(header, items), validate_only=header.validate_only)

    async def PlanBatch(self, request_iterator: AsyncIterator[pb.PlanBatchRequest], context: Context) -> pb.PlanBatchResponse:
        new = _new(*await _received(request_iterator))
        return await self._planner.plan(new.tenant, await self._batches.specs(new))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.Batch:
        return await self._batches.get(parse_batch(request.name))

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        return await list_batches(self._db, request)

    async def ListBatchJobs(self, request: pb.ListBatchJobsRequest, context: Context) -> pb.ListBatchJobsResponse:
        return await list_batch_jobs(self._db, request)

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Context) -> AsyncIterator[pb.WatchBatchResponse]:
        async for event in watch_batch(self._db, parse_batch(request.name), request.resume_token, self._stopping):
            yield event

    async def CancelBatch(self, request: pb.CancelBatchRequest, context: Context) -> pb.Batch:
        return await self._batches.cancel(parse_batch(request.name), request.etag)

    async def RetryFailed(self, request: pb.RetryFailedRequest, context: Context) -> pb.Batch:
        return await self._batches.retry_failed(parse_batch(request.name), request.etag)


async def _received(
    parts: AsyncIterator[pb.CreateBatchRequest] | AsyncIterator[pb.PlanBatchRequest],
) -> tuple[pb.BatchHeader, list[pb.BatchItem]]:
    """The header and the items. Raises InvalidInput at the first part that is too much: a caller may send without end."""
    header: pb.BatchHeader | None = None
    items: list[pb.BatchItem] = []
    size_bytes = 0
    async for part in parts:
        if part.HasField("header") != (header is None):
            raise invalid("header", "must be in the first message, and in no other")
        if part.HasField("header"):
            header = part.header
        items.extend(part.items.items)
        size_bytes += part.ByteSize()
        if len(items) > MAX_ITEMS:
            raise invalid("items", f"are more than {MAX_ITEMS:,}, which is what a batch holds; make two of it", reason="BATCH_TOO_LARGE")
        if size_bytes > MAX_BATCH_BYTES:
            told = f"take more than {MAX_BATCH_BYTES // 2**20} MiB; put what they share into the defaults, or make two batches of it"
            raise invalid("items", told, reason="BATCH_TOO_LARGE")
    if header is None:
        raise invalid("header", "must be in the first message")
    return header, items


def _new(header: pb.BatchHeader, items: list[pb.BatchItem]) -> NewBatch:
    return NewBatch(
        tenant=parse_tenant(header.parent),
        batch_id=check_batch_id(header.batch_id, "batch_id") if header.batch_id else "",
        request_id=parse_request_id(header.request_id),
        defaults=spec_proto.fields(header.defaults),
        items=items,
    )
