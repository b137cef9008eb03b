"""Serves ListBatches and ListBatchJobs: pages by key, tokens bound to their query (AIP-158, AIP-160)."""

from collections.abc import Sequence
from functools import partial

from lorafleet.v1 import batch_service_pb2 as pb
from service.api.lists import paging
from service.api.lists.jobs import compiled, job_messages
from service.core.resource_names import parse_batch, parse_tenant
from service.db import batches
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobRow
from service.jobs.batches import existing
from service.jobs.messages import batch_message


async def list_batches(db: Database, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
    """A page of a tenant's batches, newest first."""
    tenant = parse_tenant(request.parent)
    size = paging.size_of(request.page_size)
    query = (request.parent, "batches")
    behind = paging.to_key(paging.place(query, request.page_token)) if request.page_token else None
    async with db.snapshot() as tx:
        rows = await batches.page(tx, tenant, behind=behind, size=size + 1)
        counts = await batches.counts(tx, [row.uid for row in rows[:size]])
    shown = [batch_message(row, counts[row.uid]) for row in rows[:size]]
    num = paging.fitting(shown)
    token = paging.token(query, **paging.of_key(PageKey(rows[num - 1].create_time, rows[num - 1].uid))) if len(rows) > num else ""
    return pb.ListBatchesResponse(batches=shown[:num], next_page_token=token)


async def list_batch_jobs(db: Database, request: pb.ListBatchJobsRequest) -> pb.ListBatchJobsResponse:
    """A page of a batch's jobs, in the order of their items."""
    name = parse_batch(request.parent, "parent")
    size = paging.size_of(request.page_size)
    matches = compiled(request.filter)
    query = (request.parent, "jobs", request.filter)
    behind = paging.to_index(paging.place(query, request.page_token)) if request.page_token else -1
    async with db.snapshot() as tx:
        batch = await existing(tx, name)

        async def fetch(last: JobRow | None, num: int) -> Sequence[JobRow]:
            index = behind if last is None else last.batch_index
            return await batches.jobs_page(tx, batch.uid, matches, behind=index or 0, size=num)

        shown, last = await paging.filled(size, fetch, partial(job_messages, tx))
    token = "" if last is None else paging.token(query, index=last.batch_index)
    return pb.ListBatchJobsResponse(training_jobs=shown, next_page_token=token)
