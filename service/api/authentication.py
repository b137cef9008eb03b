"""Sets who calls around each RPC. How that is known is `service.access`'s; what a caller may do is decided behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from service.access.identity import OPEN, Identity, current_identity
from service.api.errors import Context, Handler

# Reports carry the token of their run, and health is asked by load balancers, which have none.
NOT_AUTHENTICATED = ("/lorafleet.v1.ReportService/", "/grpc.health.v1.Health/")


class WhoCalls(Protocol):
    """Finds out who makes a call."""

    async def __call__(self, context: Context) -> Identity:
        """Raises Unauthenticated."""
        ...


async def anybody(context: Context) -> Identity:
    """For a server without authenticator, which listens on loopback only."""
    return OPEN


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method that is not in NOT_AUTHENTICATED. Stands behind ErrorInterceptor, which answers what it raises."""

    def __init__(self, who_calls: WhoCalls) -> None:
        self._who_calls = who_calls

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(NOT_AUTHENTICATED):
            return handler
        serde = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary), *serde)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._unary(handler.stream_unary), *serde)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(handler.unary_stream), *serde)
        return grpc.stream_stream_rpc_method_handler(self._stream(handler.stream_stream), *serde)

    def _unary(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            token = current_identity.set(await self._who_calls(context))
            try:
                return await method(request, context)
            finally:
                current_identity.reset(token)

        return call

    def _stream(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            current_identity.set(await self._who_calls(context))  # each call has a context of its own: nothing to put back
            async for response in method(request, context):
                yield response

        return call
