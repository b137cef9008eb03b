"""ListBatches and ListBatchJobs: pages by key, tokens bound to their query (AIP-158, AIP-160)."""

from lorafleet.v1 import batch_service_pb2 as pb
from service.api import paging
from service.api.listing import compiled
from service.batches import existing
from service.db import attempts, batches
from service.db.database import Database
from service.db.job_pages import PageKey
from service.names import parse_batch, parse_tenant
from service.resources import batch_message, job_message


async def list_batches(db: Database, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
    """A page of a tenant's batches, newest first."""
    tenant = parse_tenant(request.parent)
    size = paging.size_of(request.page_size)
    query = (request.parent, "batches")
    behind = paging.to_key(paging.place(query, request.page_token)) if request.page_token else None
    async with db.snapshot() as tx:
        rows = await batches.page(tx, tenant, behind=behind, size=size + 1)
        shown = rows[:size]
        counts = await batches.counts(tx, [row.uid for row in shown])
    token = ""
    if len(rows) > size:
        token = paging.token(query, **paging.of_key(PageKey(shown[-1].create_time, shown[-1].uid)))
    return pb.ListBatchesResponse(batches=[batch_message(row, counts[row.uid]) for row in shown], next_page_token=token)


async def list_batch_jobs(db: Database, request: pb.ListBatchJobsRequest) -> pb.ListBatchJobsResponse:
    """A page of a batch's jobs, in the order of their items."""
    name = parse_batch(request.parent, "parent")
    size = paging.size_of(request.page_size)
    matches = compiled(request.filter)
    query = (request.parent, "jobs", request.filter)
    behind = paging.to_index(paging.place(query, request.page_token)) if request.page_token else -1
    async with db.snapshot() as tx:
        batch = await existing(tx, name)
        rows = await batches.jobs_page(tx, batch.uid, matches, behind=behind, size=size + 1)
        shown = rows[:size]
        runs = await attempts.of_jobs(tx, [row.uid for row in shown])
    token = paging.token(query, index=shown[-1].batch_index) if len(rows) > size else ""
    return pb.ListBatchJobsResponse(training_jobs=[job_message(row, runs[row.uid]) for row in shown], next_page_token=token)
