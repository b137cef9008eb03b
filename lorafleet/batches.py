"""What the client does with batches: many jobs accepted, watched and ended as one. Knows gRPC and the protos."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from google.protobuf.message import Message

from lorafleet import batch_items
from lorafleet.connection import Connection, deadline_after
from lorafleet.states import has_ended
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from lorafleet.v1.batch_service_pb2_grpc import BatchServiceStub

CHUNK_BYTES = 900 * 2**10  # of items in one message: well below gRPC's 4 MiB, whatever a proxy in between allows
ITEM_S = 0.02  # what a call may take for each item, over the time of any call
PAGE_SIZE = 500


class Batches:
    """The part of the Client that deals with batches. `defaults` and `items` are plain values, as in a batch file."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self.tenant = tenant
        self.connection = connection
        self._batch_rpc = cast(Any, BatchServiceStub(connection.channel))  # generated, untyped

    @property
    def parent(self) -> str:
        return f"tenants/{self.tenant}"

    def batch_name(self, batch: str) -> str:
        """tenants/{tenant}/batches/{batch} of a batch's id; a full name stays as it is."""
        return batch if "/" in batch else f"{self.parent}/batches/{batch}"

    def create_batch(
        self,
        defaults: Mapping[str, Any],
        items: Sequence[Mapping[str, Any]],
        *,
        batch_id: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> pb.Batch:
        """Submit a batch, all of it or nothing: each item is a partial spec over `defaults`, with a `job_id` if it likes.

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
        requests = [pb.CreateBatchRequest(header=header), *(pb.CreateBatchRequest(items=chunk) for chunk in _chunks(items))]
        return self.connection.call_with_all(self._batch_rpc.CreateBatch, requests, more_s=ITEM_S * len(items))

    def plan_batch(self, defaults: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> pb.PlanBatchResponse:
        """The packs that such a batch would train as on an idle service; nothing is submitted. Raises InvalidSpec."""
        header = pb.BatchHeader(parent=self.parent, defaults=batch_items.defaults_message(defaults))
        requests = [pb.PlanBatchRequest(header=header), *(pb.PlanBatchRequest(items=chunk) for chunk in _chunks(items))]
        return self.connection.call_with_all(self._batch_rpc.PlanBatch, requests, more_s=ITEM_S * len(items))

    def get_batch(self, batch: str) -> pb.Batch:
        """The batch with its counts as they are now. Raises NotFound."""
        return self.connection.call(self._batch_rpc.GetBatch, pb.GetBatchRequest(name=self.batch_name(batch)))

    def list_batches(self, *, page_size: int = 0) -> Iterator[pb.Batch]:
        """The tenant's batches, newest first, page by page."""
        request = pb.ListBatchesRequest(parent=self.parent, page_size=page_size)
        for page in self._pages(self._batch_rpc.ListBatches, request):
            yield from page.batches

    def list_batch_jobs(self, batch: str, *, filter: str = "", page_size: int = PAGE_SIZE) -> Iterator[jobs_pb.TrainingJob]:
        """The jobs of a batch in the order of their items, page by page; `filter` as in `list`. Raises NotFound."""
        request = pb.ListBatchJobsRequest(parent=self.batch_name(batch), filter=filter, page_size=page_size)
        for page in self._pages(self._batch_rpc.ListBatchJobs, request):
            yield from page.training_jobs

    def watch_batch(self, batch: str, *, timeout_s: float | None = None) -> Iterator[jobs_pb.TrainingJob]:
        """Every job of a batch as it is, then after every change, until all have ended.

        Goes on where it was when the server comes back; after a long absence jobs may be repeated as they are now.
        Raises NotFound, and TimeoutError after `timeout_s`.
        """
        left = _Left(self.get_batch(batch).num_jobs)
        request = pb.WatchBatchRequest(name=self.batch_name(batch))
        event: pb.WatchBatchResponse
        for event in self.connection.watch(self._batch_rpc.WatchBatch, request, deadline_after(timeout_s)):
            if not event.HasField("training_job"):
                continue
            yield event.training_job
            if not left.after(event):
                return

    def cancel_batch(self, batch: str) -> pb.Batch:
        """Ask every unfinished job of a batch to stop; each saves a checkpoint first. Raises NotFound."""
        return self.connection.call(self._batch_rpc.CancelBatch, pb.CancelBatchRequest(name=self.batch_name(batch)))

    def retry_failed(self, batch: str) -> pb.Batch:
        """Queue the failed jobs of a batch again. Raises NotFound."""
        return self.connection.call(self._batch_rpc.RetryFailed, pb.RetryFailedRequest(name=self.batch_name(batch)))

    def _pages(self, method: Any, request: Any) -> Iterator[Any]:
        while True:
            page = self.connection.call(method, cast(Message, request))
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _chunks(items: Sequence[Mapping[str, Any]]) -> Iterator[pb.BatchItems]:
    chunk, size_bytes = pb.BatchItems(), 0
    for message in batch_items.item_messages(items):
        if chunk.items and size_bytes + message.ByteSize() > CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = pb.BatchItems(), 0
        chunk.items.append(message)
        size_bytes += message.ByteSize()
    if chunk.items:
        yield chunk


class _Left:
    """How many jobs of a watched batch have not ended yet."""

    def __init__(self, num_jobs: int) -> None:
        self._num_jobs = num_jobs
        self._ended = set[str]()
        self._in_snapshot = False

    def after(self, event: pb.WatchBatchResponse) -> int:
        if event.snapshot and not self._in_snapshot:
            self._ended.clear()  # what ended before the absence may have been retried since
        self._in_snapshot = event.snapshot
        if has_ended(event.training_job):
            self._ended.add(event.training_job.name)
        else:
            self._ended.discard(event.training_job.name)
        return self._num_jobs - len(self._ended)
