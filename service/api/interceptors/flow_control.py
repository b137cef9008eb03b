"""Keeps the pace of calls: none begins after its deadline, and no stream waits for ever for a caller that does not read."""

import asyncio
from contextlib import aclosing
from typing import Any

import grpc

from lorafleet.errors import Unavailable
from service.api.errors import Context, abort
from service.api.handlers import Handler, MethodInterceptor, wrapped

SAY_SO_S = 5.0  # that a slow reader gets to hear why its stream ends


class FlowInterceptor(MethodInterceptor):
    """Stands before all others: it writes what they yield.

    gRPC buffers up to its flow-control window for a caller and then takes no more. A stream that stays like that for
    `slow_reader_s` ends with UNAVAILABLE / SLOW_READER: the caller reads what was sent, then that, and goes on with its last
    token. Nothing but the one message under way is kept for it meanwhile.
    """

    def __init__(self, slow_reader_s: float) -> None:
        super().__init__()
        self._slow_reader_s = slow_reader_s

    def around(self, method: str, handler: Handler) -> Handler:
        return wrapped(handler, unary=_in_time, stream=self._paced)

    def _paced(self, method: Any) -> Any:
        async def call(request: Any, context: Context) -> None:
            await check_deadline(context)
            async with aclosing(method(request, context)) as answers:
                async for answer in answers:
                    await self._write(context, answer)

        return call

    async def _write(self, context: Context, answer: Any) -> None:
        try:
            async with asyncio.timeout(self._slow_reader_s):
                await context.write(answer)
        except TimeoutError:
            message = f"the stream was not read for {self._slow_reader_s:.0f} s while more waited; go on from what was read last"
            async with asyncio.timeout(SAY_SO_S):  # a caller that does not read takes no status either: then it is cut off
                await abort(context, Unavailable(message, reason="SLOW_READER"))


def _in_time(method: Any) -> Any:
    async def call(request: Any, context: Context) -> Any:
        await check_deadline(context)
        return await method(request, context)

    return call


async def check_deadline(context: Context) -> None:
    """Ends a call whose caller waits no more. (One whose deadline passes later is cancelled by gRPC where it stands.)"""
    left_s = context.time_remaining()
    if left_s is not None and left_s <= 0:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline had passed before the call was begun")
