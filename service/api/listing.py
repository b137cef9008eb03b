"""ListTrainingJobs: filters compiled to SQL, and page tokens bound to their query (AIP-158, AIP-160)."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import assert_never

from sqlalchemy import ColumnElement

from lorafleet.errors import InvalidInput
from lorafleet.v1 import training_service_pb2 as pb
from service.api import opaque
from service.api.filters import Comparison, parse_filter, parse_order
from service.db import attempts, job_pages
from service.db.database import Database
from service.db.job_pages import PageKey
from service.db.models import JobRow
from service.names import invalid, parse_tenant
from service.resources import job_message

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def list_jobs(db: Database, request: pb.ListTrainingJobsRequest) -> pb.ListTrainingJobsResponse:
    """A page of a tenant's jobs."""
    tenant = parse_tenant(request.parent)
    if request.page_size < 0:
        raise invalid("page_size", "is negative")
    size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    newest_first = parse_order(request.order_by)
    matches = [compiled(comparison) for comparison in parse_filter(request.filter)]
    behind = _key(request) if request.page_token else None
    async with db.snapshot() as tx:
        rows = await job_pages.page(tx, tenant, matches, newest_first=newest_first, behind=behind, size=size + 1)
        shown = rows[:size]
        runs = await attempts.of_jobs(tx, [row.uid for row in shown])
    more = len(rows) > size
    return pb.ListTrainingJobsResponse(
        training_jobs=[job_message(row, runs[row.uid]) for row in shown], next_page_token=_token(request, shown[-1]) if more else ""
    )


def compiled(comparison: Comparison) -> ColumnElement[bool]:
    """The comparison as SQL; values become bound parameters."""
    value = comparison.value
    match value:
        case datetime():
            return job_pages.compare_time(comparison.op, value)
        case str():
            column = job_pages.label(comparison.label) if comparison.field == "labels" else JobRow.state
            return job_pages.compare_text(column, comparison.op, value)
        case _:
            assert_never(value)


def _token(request: pb.ListTrainingJobsRequest, last: JobRow) -> str:
    micros = (last.create_time - _EPOCH) // timedelta(microseconds=1)
    return opaque.pack({"query": _query(request), "time": micros, "uid": last.uid})


def _key(request: pb.ListTrainingJobsRequest) -> PageKey:
    try:
        values = opaque.unpack(request.page_token)
    except opaque.BadToken:
        raise _bad_token("is not one that this service gave") from None
    if values.get("query") != _query(request):
        raise _bad_token("belongs to another parent, filter or order; begin anew without it")
    return PageKey(_EPOCH + timedelta(microseconds=values["time"]), values["uid"])


def _query(request: pb.ListTrainingJobsRequest) -> str:
    return hashlib.sha256("\0".join([request.parent, request.filter, request.order_by]).encode()).hexdigest()[:16]


def _bad_token(problem: str) -> InvalidInput:
    return invalid("page_token", problem, reason="BAD_PAGE_TOKEN")
