"""Waits for lorafleet.aio: for answers, for time, for threads. `lorafleet.transport.sync_io` has the same names for those that block."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import grpc
import grpc.aio

from lorafleet.credentials import Credentials
from lorafleet.transport.channel import Options, open_aio_channel

Response = TypeVar("Response")
Item_co = TypeVar("Item_co", covariant=True)
Channel = grpc.aio.Channel
Method = Callable[..., Awaitable[Response]]  # of a stub: one answer
Attempt = Callable[[float | None], Awaitable[Response]]  # takes its timeout in seconds

sleep = asyncio.sleep


class Answers(Protocol[Item_co]):
    """The answers of one streaming call."""

    def __aiter__(self) -> AsyncIterator[Item_co]: ...

    def cancel(self) -> object: ...


def open_channel(server: str, credentials: Credentials, options: Options) -> Channel:
    """A channel of the running event loop. Raises InvalidInput for credentials that cannot be used.

    Raises RuntimeError outside of an event loop: gRPC would take another, and hang later.
    """
    asyncio.get_running_loop()
    return open_aio_channel(server, credentials, options)


async def close_channel(channel: Channel) -> None:
    await channel.close(None)


@asynccontextmanager
async def cancelled_by_close(is_closed: Callable[[], bool], closed: Callable[[], Exception]) -> AsyncGenerator[None]:
    """gRPC ends the calls of a channel that is closed as if their task were cancelled: raises `closed()` where it is not."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if is_closed() and (task is None or not task.cancelling()):
            raise closed() from None
        raise
    except grpc.aio.UsageError:  # the channel was closed before the call began
        if is_closed():
            raise closed() from None
        raise


async def in_thread(work: Callable[[threading.Event], Response]) -> Response:
    """Runs blocking work in its own thread. On cancellation, waits until `work` has seen its event set and cleaned up."""
    stop = threading.Event()
    working = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([working])
        raise
