"""Adapters that stay in memory, the last used ones, within a bound; read again when they come back. Knows no files."""

from collections import OrderedDict
from collections.abc import Callable

from trainer.generation.adapter import Adapter

MOST_BYTES = 4 * 2**30


class KeptAdapters:
    """By digest."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.num_read = 0
        self._kept: OrderedDict[str, Adapter] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return sum(adapter.size_bytes for adapter in self._kept.values())

    def get(self, digest: str, read: Callable[[], Adapter]) -> Adapter:
        """Those not used for longest go; the one that is asked for stays, however large."""
        if digest not in self._kept:
            self._kept[digest] = read()
            self.num_read += 1
        self._kept.move_to_end(digest)
        while len(self._kept) > 1 and self.size_bytes > self.most_bytes:
            self._kept.popitem(last=False)
        return self._kept[digest]
