"""Objects read by range: several ranges at a time, given out in order. No torch.

What is asked for and not yet given out is at most IN_FLIGHT ranges, however long the objects are. A store that is away for a while, or
an answer that breaks off, is ridden out by each range for itself, as `storage` does it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from trainer.storage import Entry, Folder

RANGE_BYTES = 16 * 2**20
IN_FLIGHT = 4

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Object:
    """One object of a folder, as it was listed."""

    folder: Folder
    entry: Entry

    @property
    def uri(self) -> str:
        return f"{self.folder.uri}/{self.entry.path}"

    @property
    def num_ranges(self) -> int:
        return -(-self.entry.size_bytes // RANGE_BYTES)


def of_all(objects: Iterable[Object]) -> Generator[memoryview]:
    """The bytes of these objects, one after the other, in pieces of RANGE_BYTES; of each the last is what is left.

    Raises RunFailed: OBJECT_CHANGED, or the store's own reasons.
    """
    return _in_order(_read(each, start) for each in objects for start in range(0, each.entry.size_bytes, RANGE_BYTES))


def _read(each: Object, start: int) -> Callable[[], memoryview]:
    length = min(RANGE_BYTES, each.entry.size_bytes - start)
    return lambda: each.folder.get_range_of(each.entry, start, length)


def _in_order(calls: Iterable[Callable[[], T]]) -> Generator[T]:
    """What the calls return, in their order; they run in threads, as far ahead as IN_FLIGHT allows."""
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="range")
    try:
        for call in calls:
            ready = [waiting.popleft().result()] if len(waiting) == IN_FLIGHT else []
            waiting.append(pool.submit(call))
            yield from ready
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
