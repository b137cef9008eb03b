"""Where the files of a base lie: below its folder, those of a part perhaps in a folder of the part's own. Reads little of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from lorafleet.catalog.single_file import ENDING
from lorafleet.contract.confined_files import root_of_base, root_of_part
from lorafleet.contract.layout import join
from service.store.client import Store


@dataclass(frozen=True)
class Places:
    """The files of one base by their paths in it, such as `vae/config.json`."""

    store: Store
    uri: str
    parts: Mapping[str, str]

    def uri_of(self, path: str) -> str:
        """Of the base itself for the empty path, where it is one file."""
        part, _, rest = path.partition("/")
        return join(self.parts[part], rest) if part in self.parts else join(self.uri, path) if path else self.uri

    @property
    def is_single_file(self) -> bool:
        return self.uri.endswith(ENDING)

    async def get(self, path: str, *, most_bytes: int) -> bytes | None:
        return await self._of(path).get(self.uri_of(path), most_bytes=most_bytes)

    async def get_range(self, path: str, start: int, length: int) -> bytes | None:
        return await self._of(path).get_range(self.uri_of(path), start, length)

    async def exists(self, path: str) -> bool:
        return await self._of(path).exists(self.uri_of(path))

    def _of(self, path: str) -> Store:
        part = path.partition("/")[0]
        if part in self.parts:
            return self.store.within(root_of_part(self.parts[part]))
        return self.store.within(root_of_part(self.uri.rpartition("/")[0]) if self.is_single_file else root_of_base(self.uri))
