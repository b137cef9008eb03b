"""Wraps a method's handler: what interceptors that look at whole calls have in common."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

Handler = Any  # grpc.RpcMethodHandler, of which grpcio's types know nothing
RPC: Any = grpc  # for handlers, of which its types know nothing either
Around = Callable[[Any], Any]  # from the method to the method with something around it


def wrapped(handler: Handler, *, unary: Around, stream: Around, stream_unary: Around | None = None, decoder: Any = None) -> Handler:
    """The handler with its method wrapped, by whether it answers once or many times.

    `stream_unary`: for a method that takes a stream and answers once, where `unary` does not do; `decoder`: of requests, in place
    of the handler's own.
    """
    serde = (decoder or handler.request_deserializer, handler.response_serializer)
    if handler.unary_unary is not None:
        return RPC.unary_unary_rpc_method_handler(unary(handler.unary_unary), *serde)
    if handler.stream_unary is not None:
        return RPC.stream_unary_rpc_method_handler((stream_unary or unary)(handler.stream_unary), *serde)
    if handler.unary_stream is not None:
        return RPC.unary_stream_rpc_method_handler(stream(handler.unary_stream), *serde)
    return RPC.stream_stream_rpc_method_handler(stream(handler.stream_stream), *serde)


def metadata_of(context: Any) -> dict[str, object]:
    """What came with a call beside its message: text, and bytes under names in `-bin`."""
    return dict(context.invocation_metadata() or ())


class MethodInterceptor(grpc.aio.ServerInterceptor):  # pyright: ignore[reportMissingTypeArgument] (generic in its stubs alone)
    """Puts something around methods, around each once: gRPC asks for the handler of a method again with every call."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    @abstractmethod
    def around(self, method: str, handler: Handler) -> Handler:
        """The handler of a method, named as in HandlerCallDetails, with something around it."""

    def missing(self) -> None:
        """A call came in for a method that there is not."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        method = handler_call_details.method
        if (known := self._handlers.get(method)) is not None:
            return known
        if (handler := await continuation(handler_call_details)) is None:
            self.missing()
            return None
        made = self._handlers[method] = self.around(method, handler)
        return made
