"""Takes calls in: each has a slot until it is answered, and its message a time to come. Before it nobody is known."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

from lorafleet.errors import InvalidInput, ResourceExhausted, Unavailable
from service.api.errors import Context, checked
from service.api.handlers import RPC, Handler, MethodInterceptor, wrapped
from service.api.interceptors.call_stages import CallStage, SlotPools, address_of, current
from service.api.interceptors.observing import about
from service.core import log_context
from service.db.retrying import again
from service.settings.serve_settings import CallLimits

_REPORTS = "/lorafleet.v1.ReportService/"
_WATCH_HEALTH = "/grpc.health.v1.Health/Watch"
COME_AGAIN_S = 1.0
WATCH_AGAIN_S = 30.0
WHOLE_MESSAGES = 20  # that a stream of messages may take the time of


class IntakeInterceptor(MethodInterceptor):
    """Stands before the authentication: a call is its address's until it is known whose it is."""

    def __init__(self, limits: CallLimits) -> None:
        super().__init__()
        self._pools = SlotPools(limits)
        self._slow_reader_s = limits.slow_reader_s

    def around(self, method: str, handler: Handler) -> Handler:
        stream = self._watching if method == _WATCH_HEALTH else self._stream
        return wrapped(handler, unary=partial(self._unary, method), stream=partial(stream, method))

    def _unary(self, name: str, method: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            with self._entered(name, context):
                return await method(request, context)

        return call

    def _stream(self, name: str, method: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._entered(name, context):
                async with aclosing(method(request, context)) as answers:
                    async for answer in answers:
                        yield answer

        return call

    def _watching(self, name: str, method: Any) -> Any:
        """Nobody is asked who watches the health, and a watch has no end: it has a slot of its own for as long as it lasts."""

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._entered(name, context) as stage, self._watch(stage):
                async with aclosing(method(request, context)) as answers:
                    async for answer in answers:
                        yield answer

        return call

    @contextmanager
    def _entered(self, name: str, context: Context) -> Generator[CallStage]:
        task: Any = asyncio.current_task()  # gRPC's own for this call
        slots = self._pools.reports if name.startswith(_REPORTS) else self._pools.strangers
        stage = CallStage(self._pools, slots, address_of(context.peer()), task, self._slow_reader_s)
        task.add_done_callback(stage.end)
        current.set(stage)  # each call has its own context: nothing to restore
        stage.wait()
        try:
            yield stage
        except asyncio.CancelledError:
            if not stage.is_lost:
                raise
            task.uncancel()
            raise _too_many(f"{stage.who or stage.address} has too many calls here that wait for their caller") from None
        finally:
            stage.answer()

    @contextmanager
    def _watch(self, stage: CallStage) -> Generator[None]:
        if self._pools.watches.is_full_of(stage.address):  # who has one keeps it: each that ended would be asked for again at once
            raise _too_many(f"{stage.address} has too many watches of health here", WATCH_AGAIN_S)
        slot = self._pools.watches.take(stage.address, stage.lose)
        try:
            yield
        finally:
            slot.leave()


def _too_many(message: str, delay_s: float = COME_AGAIN_S) -> ResourceExhausted:
    return ResourceExhausted(f"{message}; come again later", reason="TOO_MANY_CALLS", retryable=True, retry_delay_s=delay_s)


class ArrivalInterceptor(MethodInterceptor):
    """Stands behind the authentication: waits for the message of a call, and tries the call again where that helps.

    To gRPC every method takes a stream, which on the wire is the same. Else gRPC itself would wait for the message, without end
    and before anybody here has seen the call.
    """

    def __init__(self, slow_writer_s: float) -> None:
        super().__init__()
        self._slow_writer_s = slow_writer_s

    def around(self, method: str, handler: Handler) -> Handler:
        serde = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return RPC.stream_unary_rpc_method_handler(self._unary(handler.unary_unary), *serde)
        if handler.unary_stream is not None:
            return RPC.stream_stream_rpc_method_handler(self._stream(handler.unary_stream), *serde)
        return wrapped(handler, unary=self._many, stream=self._many)

    def _unary(self, method: Any) -> Any:
        async def call(_requests: Any, context: Context) -> Any:
            request = await self._arrived(context)
            return await again(partial(method, request, context))

        return call

    def _stream(self, method: Any) -> Any:
        async def call(_requests: Any, context: Context) -> AsyncIterator[Any]:
            request = await self._arrived(context)
            async with aclosing(method(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    def _many(self, method: Any) -> Any:
        def call(requests: AsyncIterator[Any], context: Context) -> Any:
            return method(self._arriving(requests), context)

        return call

    async def _arrived(self, context: Context) -> Any:
        """The message. Raises Unavailable when it does not come in time, and InvalidInput for none."""
        try:
            async with asyncio.timeout(self._slow_writer_s):
                request = await context.read()
        except TimeoutError:
            raise self._slow_writer("the message was not sent whole") from None
        if request is RPC.aio.EOF:
            raise InvalidInput("the call has no message", reason="BAD_MESSAGE")
        request = checked(request)
        log_context.bind(**about(request))
        current.get().work()
        return request

    async def _arriving(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The messages as they come. Raises Unavailable for a caller who stops in the middle: what it has sent is held in memory."""
        parts, loop = aiter(requests), asyncio.get_running_loop()
        until_s = loop.time() + WHOLE_MESSAGES * self._slow_writer_s
        while True:
            try:
                async with asyncio.timeout_at(min(until_s, loop.time() + self._slow_writer_s)):
                    request = await anext(parts, None)
            except TimeoutError:
                raise self._slow_writer("nothing more was sent, and the end was not either") from None
            current.get().work()
            if request is None:
                return
            yield request

    def _slow_writer(self, what: str) -> Unavailable:
        return Unavailable(f"{what} within {self._slow_writer_s:g} s; send it again", reason="SLOW_WRITER")
