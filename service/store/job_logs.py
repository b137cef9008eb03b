"""Keeps a job's log in the store: objects of a limited size, one after another, so that no log is ever written or read whole."""

from collections.abc import AsyncGenerator

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import LorafleetError
from service.store.client import Store

OBJECT_BYTES = 2**22
READ_BYTES = 256 * 1024


class Changed(LorafleetError):
    """The store does not hold what was written before: another has written there, or it was deleted."""

    reason = "LOG_CHANGED"


async def append(store: Store, layout: JobLayout, attempt: int, at: int, text: bytes) -> None:
    """Writes `text` from byte `at` of the log on. Done again after a kill, it leaves the same. Raises Changed."""
    store = store.within(layout.root)
    number, inside = divmod(at, OBJECT_BYTES)
    if inside:
        before = await store.get_range(layout.log(attempt, number), 0, inside) or b""
        if len(before) < inside:
            raise Changed(f"{layout.log(attempt, number)} does not hold what was copied there; it is copied again")
        text = before + text
    for start in range(0, len(text), OBJECT_BYTES):
        await store.put(layout.log(attempt, number), text[start : start + OBJECT_BYTES])
        number += 1


async def read(store: Store, layout: JobLayout, attempt: int, start: int) -> AsyncGenerator[bytes, None]:
    """The log from byte `start` on, in pieces; none when there is nothing."""
    store = store.within(layout.root)
    number, inside = divmod(start, OBJECT_BYTES)
    while True:
        text = await store.get_range(layout.log(attempt, number), inside, READ_BYTES)
        if text:
            yield text
            inside += len(text)
        elif text is not None and inside >= OBJECT_BYTES:  # an older server has left longer ones
            number, inside = number + 1, 0
        else:
            return
