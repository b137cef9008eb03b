"""Observes every RPC: how many, how long, how they end; what its log lines are about; its place in a trace. The outermost wrapper."""

import re
import secrets
import time
from collections.abc import AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio

from lorafleet import __version__
from service.api.errors import Context
from service.api.handlers import Handler, MethodInterceptor, wrapped
from service.core import log_context, telemetry

ASK_VERSION = "lorafleet-ask-version"  # a call with it, set to 1, is answered with the server's version: lorafleet doctor's
VERSION = "lorafleet-version"
_METADATA_ASKS = (ASK_VERSION, "1")
_TRACE_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")  # W3C trace context, level 1


class ObservingInterceptor(MethodInterceptor):
    """Wraps every method. Stands before ErrorInterceptor, so that it sees the codes that callers get."""

    def around(self, method: str, handler: Handler) -> Handler:
        name = method.removeprefix("/").removeprefix("lorafleet.v1.")
        return wrapped(handler, unary=partial(_unary, name), stream=partial(_stream, name))

    def missing(self) -> None:
        # Its name is the caller's invention and becomes no label.
        telemetry.count("lorafleet_rpcs_total", method="unknown", code="UNIMPLEMENTED")


def new_trace_parent() -> str:
    """A new trace, for work that has none. Not sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def _unary(method: str, call: Any) -> Any:
    async def observed(request: Any, context: Context) -> Any:
        began = time.monotonic()
        if _METADATA_ASKS in (context.invocation_metadata() or ()):
            await context.send_initial_metadata(((VERSION, __version__),))
        with _observed(method, request, context):
            try:
                return await call(request, context)
            finally:
                telemetry.measure("lorafleet_rpc_seconds", time.monotonic() - began, method=method)

    return observed


def _stream(method: str, call: Any) -> Any:
    async def observed(request: Any, context: Context) -> AsyncIterator[Any]:
        with _observed(method, request, context):
            async with aclosing(call(request, context)) as responses:
                async for response in responses:
                    yield response

    return observed


@contextmanager
def _observed(method: str, request: Any, context: Context) -> Generator[None]:
    came_with = _trace_parent(context)
    code = "OK"
    log_context.bind(method=method, peer=context.peer(), **about(request))  # each call has a context of its own: nothing to put back
    _tell_level(method, 1)
    try:
        with telemetry.span(method, parent=came_with) as span:
            telemetry.calls_trace_parent.set(span.trace_parent or came_with or new_trace_parent())
            try:
                yield
            except BaseException as error:
                code = _code(context, error)
                raise
            finally:
                span.note(code=code)
    finally:
        _tell_level(method, -1)
        telemetry.count("lorafleet_rpcs_total", method=method, code=code)


def _tell_level(method: str, change: int) -> None:
    telemetry.level("lorafleet_rpcs_in_flight", change, method=method)
    if "/Watch" in method and not method.startswith("grpc."):
        telemetry.level("lorafleet_watchers", change)


def about(request: Any) -> dict[str, str]:
    """The names in a request that tell what it is about. A stream of requests has none."""
    facts = {"request_id": "request_id", "job": "name", "run": "run", "tenant": "parent"}
    found = {fact: getattr(request, name, "") for fact, name in facts.items()}
    return {fact: value[:200] for fact, value in found.items() if isinstance(value, str)}


def _trace_parent(context: Context) -> str:
    """What the caller sent, when it is one; anything else is as if nothing was sent."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str) and _TRACE_PARENT.fullmatch(value):
            return value
    return ""


def _code(context: Context, error: BaseException) -> str:
    if not isinstance(error, grpc.aio.AbortError):
        return "CANCELLED"  # the caller went, or its time was over: ErrorInterceptor makes all else an abort
    code = context.code()
    return (
        code.name if isinstance(code, grpc.StatusCode) else next((one.name for one in grpc.StatusCode if one.value[0] == code), "UNKNOWN")
    )
