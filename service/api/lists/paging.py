"""Cuts lists into pages (AIP-158), with tokens that are good only with the query that they came from."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, TypeVar

from google.protobuf.message import Message

from lorafleet.errors import InvalidInput
from service.api import opaque_tokens
from service.core.resource_names import invalid
from service.db.job_pages import PageKey

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 3_500_000  # below the 4 MiB that gRPC's clients take; the token goes beside it
AT_ONCE = 100  # rows that are read before it is looked how large they are
_AROUND_BYTES = 8  # what the wire puts around a message in a list
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIME = 2**55  # microseconds: a thousand years
_UID = re.compile(r"[0-9a-f]{32}")

Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=Message)


def size_of(page_size: int) -> int:
    """Rows on a page. Raises InvalidInput."""
    if page_size < 0:
        raise invalid("page_size", "is negative")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def fitting(messages: Sequence[Message]) -> int:
    """How many of them a page has room for: at least one."""
    ends = accumulate(message.ByteSize() + _AROUND_BYTES for message in messages)
    return max(sum(end <= MAX_PAGE_BYTES for end in ends), min(1, len(messages)))


async def filled(
    size: int, fetch: Callable[[Row | None, int], Awaitable[Sequence[Row]]], shown: Callable[[Sequence[Row]], Awaitable[list[Shown]]]
) -> tuple[list[Shown], Row | None]:
    """A page of up to `size` rows as far as a message has room for them, and its last row when more come behind it.

    `fetch` reads up to N rows after a given one (None: from the page's beginning on); `shown` makes messages of them. Large rows
    are read some at a time, so that a page holds no more in memory than it shows.
    """
    page: list[Shown] = []
    last: Row | None = None
    while True:
        wanted = min(AT_ONCE, size - len(page))
        found = await fetch(last, wanted + 1)
        messages = await shown(found[:wanted])
        room = fitting([*page, *messages]) - len(page)
        page += messages[:room]
        last = found[room - 1] if room else last
        if room < len(messages):
            return page, last
        if len(found) <= wanted:
            return page, None
        if len(page) == size:
            return page, last


def token(query: Sequence[str], **place: Any) -> str:
    """Where the next page of a query begins."""
    return opaque_tokens.pack({"query": _digest(query), **place})


def place(query: Sequence[str], page_token: str) -> dict[str, Any]:
    """The key in `token`. Raises InvalidInput for a token of another query, or a forged one."""
    try:
        values = opaque_tokens.unpack(page_token)
    except opaque_tokens.BadToken:
        raise _bad("is not one that this service gave") from None
    if values.get("query") != _digest(query):
        raise _bad("belongs to another parent, filter or order; start over without it")
    return values


def of_key(key: PageKey) -> dict[str, Any]:
    """A key as a token holds it."""
    return {"time": (key.create_time - _EPOCH) // timedelta(microseconds=1), "uid": key.uid}


def to_key(values: dict[str, Any]) -> PageKey:
    """The key that `of_key` took apart. Raises InvalidInput for what it did not make: a token's sum is no secret."""
    match values:
        case {"time": int(time), "uid": str(uid)} if abs(time) < _MAX_TIME and _UID.fullmatch(uid):
            return PageKey(_EPOCH + timedelta(microseconds=time), uid)
        case _:
            raise _bad("is not one that this service gave")


def to_text(values: dict[str, Any]) -> str:
    """The text behind which a page begins. Raises InvalidInput for what no token of ours holds."""
    match values:
        case {"behind": str(text)} if text.isprintable():  # and so of no NUL and no half of a character, which databases refuse
            return text
        case _:
            raise _bad("is not one that this service gave")


def to_index(values: dict[str, Any]) -> int:
    """The index of an item. Raises InvalidInput for what no token of ours holds."""
    match values:
        case {"index": int(index)} if -1 <= index < 2**31:
            return index
        case _:
            raise _bad("is not one that this service gave")


def _digest(query: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(query).encode()).hexdigest()[:16]


def _bad(problem: str) -> InvalidInput:
    return invalid("page_token", problem, reason="BAD_PAGE_TOKEN")
