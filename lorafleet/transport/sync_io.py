"""Waits for lorafleet.sync: it blocks. `lorafleet.transport.async_io` has the same names for those that await."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import grpc

from lorafleet.transport.channel import open_channel as open_channel

Response = TypeVar("Response")
Item_co = TypeVar("Item_co", covariant=True)
Channel = grpc.Channel
Method = Callable[..., Response]  # of a stub: one answer
Attempt = Callable[[float | None], Response]  # takes its timeout in seconds

sleep = time.sleep


class Answers(Protocol[Item_co]):
    """The answers of one streaming call."""

    def __iter__(self) -> Iterator[Item_co]: ...

    def cancel(self) -> object: ...


def close_channel(channel: Channel) -> None:
    channel.close()


@contextmanager
def cancelled_by_close(is_closed: Callable[[], bool], closed: Callable[[], Exception]) -> Generator[None]:
    """gRPC ends the calls of a closed channel as CANCELLED, and nothing else here cancels: raises `closed()`."""
    try:
        yield
    except (ValueError, grpc.RpcError):  # ValueError: the channel was closed before the call began
        if is_closed():
            raise closed() from None
        raise


def in_thread(work: Callable[[threading.Event], Response]) -> Response:
    """Here: in the caller's own thread. Its event is never set; Ctrl-C is an exception."""
    return work(threading.Event())
