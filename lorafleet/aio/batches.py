"""The client's methods for batches: many jobs accepted, watched and ended as one. Knows gRPC and the protos."""

import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from lorafleet.aio.base import AsyncBase
from lorafleet.aio.connection import AsyncConnection
from lorafleet.batch import items as batch_items
from lorafleet.transport.streams import Left
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from lorafleet.v1.batch_service_pb2_grpc import BatchServiceStub

ITEM_S = 0.02  # extra time of a call per item
PAGE_SIZE = 500


class AsyncBatches(AsyncBase):
    """The client's methods for batches. `defaults` and `items` are plain values, as in a batch file."""

    def __init__(self, connection: AsyncConnection, tenant: str) -> None:
        super().__init__(connection, tenant)
        self._batch_rpc = cast(Any, BatchServiceStub(connection.channel))  # generated, untyped

    def batch_name(self, batch: str) -> str:
        """The name of a batch: tenants/{tenant}/batches/{batch} for an id; a full name is returned unchanged."""
        return batch if "/" in batch else f"{self.parent}/batches/{batch}"

    async def create_batch(
        self,
        defaults: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        *,
        batch_id: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> pb.Batch:
        """Submit a batch, all of it or nothing: each item is a partial spec over `defaults`, with an optional `job_id`.

        Raises InvalidSpec with every violation of every item, AlreadyExists. A `request_id` (a UUID) makes the call safe to
        repeat across processes; without one it is safe within this call.
        """
        header = pb.BatchHeader(
            parent=self.parent,
            batch_id=batch_id,
            request_id=request_id or str(uuid.uuid4()),
            validate_only=validate_only,
            defaults=batch_items.defaults_message(defaults),
        )
        requests = [pb.CreateBatchRequest(header=header), *(pb.CreateBatchRequest(items=chunk) for chunk in batch_items.chunks(items))]
        return await self.connection.call_with_all(self._batch_rpc.CreateBatch, requests, more_s=ITEM_S * len(items))

    async def plan_batch(self, defaults: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> pb.PlanBatchResponse:
        """The packs that such a batch would train as on an idle service; nothing is submitted. Raises InvalidSpec."""
        header = pb.BatchHeader(parent=self.parent, defaults=batch_items.defaults_message(defaults))
        requests = [pb.PlanBatchRequest(header=header), *(pb.PlanBatchRequest(items=chunk) for chunk in batch_items.chunks(items))]
        return await self.connection.call_with_all(self._batch_rpc.PlanBatch, requests, more_s=ITEM_S * len(items))

    async def get_batch(self, batch: str) -> pb.Batch:
        """The batch with its counts as they are now. Raises NotFound."""
        return await self.connection.call(self._batch_rpc.GetBatch, pb.GetBatchRequest(name=self.batch_name(batch)))

    async def list_batches(self, *, page_size: int = 0) -> AsyncGenerator[pb.Batch]:
        """The tenant's batches, newest first, page by page."""
        request = pb.ListBatchesRequest(parent=self.parent, page_size=page_size)
        async with aclosing(self._pages(self._batch_rpc.ListBatches, request)) as pages:
            async for page in pages:
                for batch in page.batches:
                    yield batch

    async def list_batch_jobs(self, batch: str, *, filter: str = "", page_size: int = PAGE_SIZE) -> AsyncGenerator[jobs_pb.TrainingJob]:
        """The jobs of a batch in the order of their items, page by page; `filter` as in `list`. Raises NotFound."""
        request = pb.ListBatchJobsRequest(parent=self.batch_name(batch), filter=filter, page_size=page_size)
        async with aclosing(self._pages(self._batch_rpc.ListBatchJobs, request)) as pages:
            async for page in pages:
                for job in page.training_jobs:
                    yield job

    async def watch_batch(self, batch: str, *, timeout_s: float | None = None) -> AsyncGenerator[jobs_pb.TrainingJob]:
        """Every job of a batch now, then after every change, until all have ended.

        Resumes when the server returns; after a long absence jobs may be repeated in their current state.
        Raises NotFound, and DeadlineExceeded, a TimeoutError, after `timeout_s`.
        """
        left = Left((await self.get_batch(batch)).num_jobs)
        request = pb.WatchBatchRequest(name=self.batch_name(batch))
        async with aclosing(self.connection.watch(self._batch_rpc.WatchBatch, request, timeout_s)) as events:
            async for event in events:
                if not event.HasField("training_job"):
                    continue
                yield event.training_job
                if not left.after(event):
                    return

    async def cancel_batch(self, batch: str, *, etag: str = "") -> pb.Batch:
        """Ask every unfinished job of a batch to stop; each saves a checkpoint first. Raises NotFound, and Aborted for an old `etag`."""
        return await self.connection.call(self._batch_rpc.CancelBatch, pb.CancelBatchRequest(name=self.batch_name(batch), etag=etag))

    async def retry_failed(self, batch: str, *, etag: str = "") -> pb.Batch:
        """Queue the failed jobs of a batch again. Raises NotFound, and Aborted for an old `etag`."""
        return await self.connection.call(self._batch_rpc.RetryFailed, pb.RetryFailedRequest(name=self.batch_name(batch), etag=etag))
