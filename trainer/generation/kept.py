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
        self.size_bytes = 0
        self._kept: OrderedDict[str, Adapter] = OrderedDict()

    def get(self, digest: str, read: Callable[[], Adapter]) -> Adapter:
        """Those not used for longest go; the one that is asked for stays, however large."""
        if digest not in self._kept:
            self._keep(digest, read())
            self.num_read += 1
        self._kept.move_to_end(digest)
        while len(self._kept) > 1 and self.size_bytes > self.most_bytes:
            self.size_bytes -= self._kept.popitem(last=False)[1].size_bytes
        return self._kept[digest]

    def offer(self, digest: str, make: Callable[[], Adapter]) -> None:
        """One that is at hand already: it need not be read again, where there is room. Nothing goes for it."""
        if digest in self._kept or self.size_bytes >= self.most_bytes:
            return
        adapter = make()
        if self.size_bytes + adapter.size_bytes <= self.most_bytes:
            self._keep(digest, adapter)

    def _keep(self, digest: str, adapter: Adapter) -> None:
        self._kept[digest] = adapter
        self.size_bytes += adapter.size_bytes
