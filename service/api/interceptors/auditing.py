"""Writes one row in the audit log for every write and every denied write.

Stands behind the authentication, so that the row names who called: what nobody could be named for is in the server's log
alone, or else whoever reaches the port could fill the table.
"""
# pyright: reportMissingTypeStubs=false

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.rpc import code_pb2

from lorafleet.errors import LorafleetError
from service.access.identity import caller
from service.api.errors import Context, to_status
from service.api.handlers import RPC, Handler, MethodInterceptor
from service.api.interceptors.updates import updated_name
from service.db import audit
from service.db.audit import AuditEntry
from service.db.database import Database

READS = ("Get", "List", "Watch", "Stream", "Plan")  # methods with any other prefix write
MAX_RESOURCE = 300
_AUDITED = re.compile(r"/(?P<method>lorafleet\.v1\.(?!ReportService/)\w+/(?P<name>\w+))")
_TENANT = re.compile(r"tenants/([a-z][a-z0-9-]{0,39})(?:/|$)")

log = logging.getLogger(__name__)


class AuditInterceptor(MethodInterceptor):
    """Wraps every method that writes."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self._db = db

    def around(self, method: str, handler: Handler) -> Handler:
        found = _AUDITED.fullmatch(method)
        if found is None or found["name"].startswith(READS):
            return handler
        serde = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_unary is not None:
            return RPC.stream_unary_rpc_method_handler(self._streaming(handler.stream_unary, found["method"]), *serde)
        return RPC.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, found["method"]), *serde)

    def _unary(self, method: Any, name: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            entry = _entry(name, request, context)
            return await self._audited(entry, request, lambda: method(request, context))

        return call

    def _streaming(self, method: Any, name: str) -> Any:
        async def call(requests: AsyncIterator[Any], context: Context) -> Any:
            parts = aiter(requests)
            first = await anext(parts, None)
            header = None if first is None else first.header

            async def all_parts() -> AsyncIterator[Any]:
                if first is not None:
                    yield first
                async for part in parts:
                    yield part

            return await self._audited(_entry(name, header, context), header, lambda: method(all_parts(), context))

        return call

    async def _audited(self, entry: AuditEntry, request: Any, answer: Callable[[], Awaitable[Any]]) -> Any:
        if getattr(request, "validate_only", False):
            return await answer()
        try:
            response = await _noted(entry, answer)
        except Exception as error:
            await self._append(entry, *_ending(error))
            raise
        if not entry.written:
            entry.resource = str(getattr(response, "name", "")) or entry.resource
            await self._append(entry, "OK", "")
        return response

    async def _append(self, entry: AuditEntry, code: str, reason: str) -> None:
        """The call's work is done: a failure to record it goes to the log, not to the caller."""
        try:
            async with self._db.transaction() as tx:
                audit.append(tx, entry, code=code, reason=reason)
        except Exception:
            log.exception("no audit row for %s of %s by %s: %s", entry.method, entry.resource, entry.principal, code)


async def _noted(entry: AuditEntry, answer: Callable[[], Awaitable[Any]]) -> Any:
    token = audit.current_entry.set(entry)
    try:
        return await answer()
    finally:
        audit.current_entry.reset(token)


def _entry(method: str, request: Any, context: Context) -> AuditEntry:
    resource = _printable(_resource(request))[:MAX_RESOURCE]
    tenant = _TENANT.match(resource)
    return AuditEntry(
        tenant=tenant[1] if tenant else "", principal=caller().principal, method=method, resource=resource, peer=str(context.peer())
    )


def _resource(request: Any) -> str:
    """What a request says that it is about: its name, or its parent with what tells the thing apart there."""
    if request is None:
        return ""
    if tenant_id := getattr(request, "tenant_id", ""):
        return f"tenants/{tenant_id}"
    if name := getattr(request, "name", "") or updated_name(request):
        return name
    return "/".join([getattr(request, "parent", ""), *_apart(request)])


def _printable(text: str) -> str:
    """A row is kept of whatever was tried: a NUL must not keep PostgreSQL from taking it, nor a line break make two lines of it."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _apart(request: Any) -> list[str]:
    for kind, value in (
        ("jobs", getattr(request, "training_job_id", "")),
        ("batches", getattr(request, "batch_id", "")),
        ("generations", getattr(request, "generation_id", "")),
        ("reservations", getattr(request, "reservation_id", "")),
        ("webhooks", getattr(request, "webhook_id", "")),
        ("members", getattr(request, "principal", "") or getattr(getattr(request, "member", None), "principal", "")),
        ("grants", getattr(request, "prefix", "") or getattr(getattr(request, "grant", None), "prefix", "")),
    ):
        if value:
            return [kind, value]
    return []


def _ending(error: Exception) -> tuple[str, str]:
    if not isinstance(error, LorafleetError):
        return "INTERNAL", "INTERNAL"
    return code_pb2.Code.Name(to_status(error).code), error.reason
