"""Serves ListAdapters and ListAdapterVersions: pages by key, tokens bound to their query (AIP-158, AIP-160)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute

from lorafleet.v1 import adapter_service_pb2 as pb
from service.api.lists import conditions, filters, paging
from service.api.lists.filters import Comparison, Fields
from service.core.resource_names import invalid, parse_adapter, parse_tenant
from service.db import adapters, aliases
from service.db.database import Database
from service.db.job_pages import PageKey, compare_number, compare_text, compare_time
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.registry.messages import adapter_message, version_message
from service.registry.reading import existing

TEXTS: dict[str, InstrumentedAttribute[str]] = {
    "family": AdapterRow.family,
    "method": AdapterRow.method,
    "trigger": AdapterRow.trigger,
    "base_digest": AdapterRow.base_digest,
}
FIELDS = Fields(texts=dict.fromkeys(TEXTS, str), numbers=("rank",), figures=True)
ORDERS = {
    "": (False, True),
    "create_time desc": (False, True),
    "create_time": (False, False),
    "name": (True, False),
    "name desc": (True, True),
}


async def list_adapters(db: Database, request: pb.ListAdaptersRequest) -> pb.ListAdaptersResponse:
    """A page of a tenant's adapters."""
    tenant = parse_tenant(request.parent)
    size = paging.size_of(request.page_size)
    by_id, descending = _order(request.order_by)
    condition = filters.parse_filter(request.filter, FIELDS)
    matches = [adapters.NOT_PURGED if request.show_deleted else AdapterRow.delete_time.is_(None)]
    matches += [] if condition is None else [conditions.compiled(condition, _compared)]
    query = (request.parent, "adapters", request.filter, request.order_by, str(request.show_deleted))
    behind = _behind(query, request.page_token, by_id=by_id) if request.page_token else None
    async with db.snapshot() as tx:

        async def fetch(last: AdapterRow | None, num: int) -> Sequence[AdapterRow]:
            key = behind if last is None else _key(last, by_id=by_id)
            return await adapters.page(tx, tenant, matches, by_id=by_id, descending=descending, behind=key, size=num)

        async def shown(rows: Sequence[AdapterRow]) -> list[pb.Adapter]:
            pointing = await aliases.of_adapters(tx, [row.uid for row in rows])
            return [adapter_message(row, pointing[row.uid]) for row in rows]

        page, last = await paging.filled(size, fetch, shown)
    return pb.ListAdaptersResponse(adapters=page, next_page_token="" if last is None else _token(query, last, by_id=by_id))


async def list_versions(db: Database, request: pb.ListAdapterVersionsRequest) -> pb.ListAdapterVersionsResponse:
    """A page of an adapter's versions, newest first."""
    name = parse_adapter(request.parent, "parent")
    size = paging.size_of(request.page_size)
    query = (request.parent, "versions", str(request.show_deleted))
    behind = paging.to_index(paging.place(query, request.page_token)) if request.page_token else None
    async with db.snapshot() as tx:
        adapter = await existing(tx, name)
        pointing = await aliases.of_adapter(tx, adapter)

        async def fetch(last: AdapterVersionRow | None, num: int) -> Sequence[AdapterVersionRow]:
            below = behind if last is None else last.number
            return await adapters.versions_page(tx, adapter, below=below, size=num, deleted_too=request.show_deleted)

        async def shown(rows: Sequence[AdapterVersionRow]) -> list[pb.AdapterVersion]:
            return [version_message(row, pointing) for row in rows]

        page, last = await paging.filled(size, fetch, shown)
    token = "" if last is None else paging.token(query, index=last.number)
    return pb.ListAdapterVersionsResponse(adapter_versions=page, next_page_token=token)


def _order(text: str) -> tuple[bool, bool]:
    """Whether by id, and whether the last come first. Raises InvalidInput."""
    order = " ".join(text.split()).removesuffix(" asc")
    if order not in ORDERS:
        known = '"create_time", "create_time desc", "name" or "name desc"'
        raise invalid("order_by", f"{text[:200]!r} is not an order; write {known}", reason="BAD_ORDER")
    return ORDERS[order]


def _key(row: AdapterRow, *, by_id: bool) -> tuple[Any, ...]:
    return (row.adapter_id,) if by_id else (row.create_time, row.uid)


def _behind(query: Sequence[str], page_token: str, *, by_id: bool) -> tuple[Any, ...]:
    values = paging.place(query, page_token)
    if by_id:
        return (paging.to_text(values),)
    key = paging.to_key(values)
    return (key.create_time, key.uid)


def _token(query: Sequence[str], last: AdapterRow, *, by_id: bool) -> str:
    if by_id:
        return paging.token(query, behind=last.adapter_id)
    return paging.token(query, **paging.of_key(PageKey(last.create_time, last.uid)))


def _compared(comparison: Comparison, op: str) -> ColumnElement[bool]:
    match comparison:
        case Comparison(field="create_time", value=datetime() as time):
            return compare_time(op, time, AdapterRow.create_time)
        case Comparison(field="rank", value=float(number)):
            return compare_number(AdapterRow.rank, op, number)
        case Comparison(field="quality", value=float(number), label=name):
            return compare_number(AdapterRow.quality[name].as_float(), op, number)
        case Comparison(field="labels", value=str(text), label=name):
            return compare_text(AdapterRow.labels[name].as_string(), op, text)
        case Comparison(field=name, value=str(text)):
            return compare_text(TEXTS[name], op, text)
        case _:
            raise AssertionError(comparison)
