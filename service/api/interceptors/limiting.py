"""Holds calls to their limits, behind the authentication and before the servicers, which know nothing of it."""

import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Any

from google.protobuf.message import Message

from lorafleet.errors import LorafleetError
from service.access.identity import current_identity
from service.api.errors import Context
from service.api.handlers import Handler, MethodInterceptor, metadata_of, wrapped
from service.api.interceptors.call_limits import Rates, reflections, streams, uploads, work
from service.api.interceptors.updates import updated_name
from service.db.database import Database
from service.settings.serve_settings import CallLimits

_OURS = "/lorafleet.v1."
_REFLECTION = "/grpc.reflection."
_REPORTS = "/lorafleet.v1.ReportService/"
_TENANT = re.compile(r"tenants/([a-z][a-z0-9-]{0,39})(?=/|$)")
_NO_RIGHT = {"TENANT_NOT_FOUND", "PERMISSION_DENIED"}


class LimitsInterceptor(MethodInterceptor):
    """Every call of ours costs its tenant one, reads too; a stream is counted while it is open. Reports cost their run."""

    def __init__(self, limits: CallLimits, db: Database) -> None:
        super().__init__()
        self._rates = Rates(db, limits)
        self._streams = streams(limits)
        self._uploads = uploads()
        self._work = work()
        self._reflections = reflections()

    def around(self, method: str, handler: Handler) -> Handler:
        if method.startswith(_REFLECTION):
            return wrapped(handler, unary=self._unary, stream=self._reflecting)
        if not method.startswith(_OURS):
            return handler
        unary = self._report if method.startswith(_REPORTS) else self._unary
        return wrapped(handler, unary=unary, stream=self._stream, stream_unary=self._many)

    def _report(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            self._rates.take_report(request.run, str(metadata_of(context).get("authorization", "")))
            return await method(request, context)

        return call

    def _unary(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            tenant = tenant_of(request)
            await self._rates.take(tenant, _principal())
            try:
                with self._work.open(_whose(tenant)):
                    return await method(request, context)
            except LorafleetError as error:
                self._note(tenant, error)
                raise

        return call

    def _many(self, method: Any) -> Any:
        """Of a call that sends many messages the first names the tenant."""

        async def call(requests: AsyncIterator[Any], context: Context) -> Any:
            tenants: list[str] = []
            with ExitStack() as slot:

                async def counted() -> AsyncIterator[Any]:
                    async for request in requests:
                        if not tenants:
                            tenants.append(tenant_of(request.header))
                            await self._rates.take(tenants[0], _principal())
                            slot.enter_context(self._uploads.open(_whose(tenants[0])))
                        yield request

                try:
                    return await method(counted(), context)
                except LorafleetError as error:
                    for tenant in tenants:
                        self._note(tenant, error)
                    raise

        return call

    def _stream(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            tenant = tenant_of(request)
            await self._rates.take(tenant, _principal())
            try:
                with self._streams.open(_whose(tenant)):
                    async with aclosing(method(request, context)) as answers:
                        async for answer in answers:
                            yield answer
            except LorafleetError as error:
                self._note(tenant, error)
                raise

        return call

    def _reflecting(self, method: Any) -> Any:
        async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
            with self._reflections.open(_principal()):
                async with aclosing(method(requests, context)) as answers:
                    async for answer in answers:
                        yield answer

        return call

    def _note(self, tenant: str, error: LorafleetError) -> None:
        if error.reason in _NO_RIGHT:
            self._rates.was_a_stranger(tenant, _principal())


def tenant_of(request: Message) -> str:
    """The tenant that a request is about; empty when it names none, and will be refused for that or is about no tenant."""
    names = [str(getattr(request, field, "")) for field in ("parent", "name")]
    names.append(updated_name(request))
    found = next((match for name in names if (match := _TENANT.match(name)) is not None), None)
    return "" if found is None else found[1]


def _whose(tenant: str) -> str:
    """Whom a call is counted for: its tenant, or its caller where it names none."""
    return f"tenant {tenant}" if tenant else _principal()


def _principal() -> str:
    identity = current_identity.get(None)
    return "" if identity is None else identity.principal
