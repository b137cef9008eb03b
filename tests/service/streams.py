"""Streams that tests begin and need not end: they are left before the database closes, and so is what reads for them."""

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

Item = TypeVar("Item")
_begun: list[AsyncGenerator[Any, None]] = []


def begun(stream: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """The stream, to be ended by the fixture `db`."""
    _begun.append(stream)
    return stream


async def end_all() -> None:
    while _begun:
        await _begun.pop().aclose()
