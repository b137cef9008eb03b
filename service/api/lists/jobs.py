"""Lists jobs and other work: filters compiled to SQL, and page tokens bound to their query (AIP-158, AIP-160)."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement

from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.work import TRAINING
from service.api.lists import conditions, paging
from service.api.lists.filters import Comparison, parse_filter, parse_order
from service.core.resource_names import parse_tenant
from service.db import attempts, job_pages
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobRow
from service.db.transaction import Transaction
from service.jobs import kinds


async def list_jobs(db: Database, request: pb.ListTrainingJobsRequest) -> pb.ListTrainingJobsResponse:
    """A page of a tenant's jobs."""
    shown, token = await list_work(db, request, TRAINING)
    return pb.ListTrainingJobsResponse(training_jobs=shown, next_page_token=token)


async def list_work(db: Database, request: Any, kind: str) -> tuple[list[Any], str]:
    """A page of a tenant's work of one kind, and where the next begins."""
    tenant = parse_tenant(request.parent)
    size = paging.size_of(request.page_size)
    newest_first = parse_order(request.order_by)
    matches = [JobRow.kind == kind, *compiled(request.filter)]
    query = (request.parent, request.filter, request.order_by, *([] if kind == TRAINING else [kind]))
    behind = paging.to_key(paging.place(query, request.page_token)) if request.page_token else None
    async with db.snapshot() as tx:

        async def fetch(last: JobRow | None, num: int) -> Sequence[JobRow]:
            key = behind if last is None else PageKey(last.create_time, last.uid)
            return await job_pages.page(tx, tenant, matches, newest_first=newest_first, behind=key, size=num)

        shown, last = await paging.filled(size, fetch, partial(job_messages, tx))
    token = "" if last is None else paging.token(query, **paging.of_key(PageKey(last.create_time, last.uid)))
    return shown, token


async def job_messages(tx: Transaction, rows: Sequence[JobRow]) -> list[Any]:
    """The jobs, or other work, as users see them."""
    runs = await attempts.of_jobs(tx, [row.uid for row in rows])
    return [kinds.of(row.kind).message(row, runs[row.uid]) for row in rows]


def compiled(filter_text: str) -> list[ColumnElement[bool]]:
    """The filter as SQL. Raises InvalidInput."""
    condition = parse_filter(filter_text)
    return [] if condition is None else [conditions.compiled(condition, _compared)]


def _compared(comparison: Comparison, op: str) -> ColumnElement[bool]:
    match comparison.value:
        case datetime() as time:
            return job_pages.compare_time(op, time)
        case str() as text:
            column = job_pages.label(comparison.label) if comparison.field == "labels" else JobRow.state
            return job_pages.compare_text(column, op, text)
        case _:
            raise AssertionError(comparison)  # nothing of jobs is a number
