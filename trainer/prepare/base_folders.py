"""The files of a base by their paths in it, whichever folders they lie in: a part may have one of its own. No torch."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lorafleet.contract.confined_files import root_of_base, root_of_part
from trainer.storage import Entry, Folder


class BaseFolders:
    """One look at the folders of a base. Paths are those in the base, such as `vae/config.json`."""

    def __init__(self, uri: str, parts: Mapping[str, str]) -> None:
        """`parts`: by name the URI of each that is not the base's own; what the base has in its place is not looked at."""
        self.uri, self.parts = uri, parts
        self.entries: dict[str, Entry] = {}
        self.linked_out: set[str] = set()
        self._folders = {part: Folder(where, within=root_of_part(where)) for part, where in parts.items()}
        self._own = Folder(uri, within=root_of_base(uri))
        self._add(self._own, "")
        for part, folder in self._folders.items():
            self._add(folder, f"{part}/")

    def _add(self, folder: Folder, prefix: str) -> None:
        listing = folder.scan()
        hidden = tuple(f"{part}/" for part in self.parts) if not prefix else ()
        for entry in listing.entries:
            if not entry.path.startswith(hidden):
                self.entries[f"{prefix}{entry.path}"] = replace(entry, path=f"{prefix}{entry.path}")
        self.linked_out |= {f"{prefix}{path}" for path in listing.linked_out if not path.startswith(hidden)}

    def uri_of(self, path: str) -> str:
        folder, inner = self._of(path)
        return f"{folder.uri}/{inner}"

    def get(self, path: str) -> bytes:
        folder, inner = self._of(path)
        return folder.get(inner)

    def get_range(self, path: str, start: int, length: int) -> bytes:
        folder, inner = self._of(path)
        return folder.get_range(inner, start, length)

    def chunks(self, path: str) -> Iterator[bytes]:
        folder, inner = self._of(path)
        return folder.chunks(inner)

    def _of(self, path: str) -> tuple[Folder, str]:
        part, _, rest = path.partition("/")
        return (self._folders[part], rest) if part in self._folders else (self._own, path)
