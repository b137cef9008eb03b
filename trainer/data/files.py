"""Which files of a data set's folder are pictures, which hold captions, and which are passed over and why. Reads none of them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import join, normpath

from trainer import listing
from trainer.data import kinds
from trainer.listing import Listing

METADATA = ("metadata.jsonl", "metadata.csv")
MOST_TOLD = 10
_TEXT_SUFFIXES = (".txt", ".caption")
_HIDDEN = "hidden files, and what systems and tools leave behind"
_LINKED_OUT = "links that lead out of the folder"
_NAME = "has a name that the store's client cannot hold (control characters, or not UTF-8); rename it"

# Besides names that begin with a dot, as ._a.png, .DS_Store and .ipynb_checkpoints do. Lower case.
_LEFT_BEHIND = {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"} | {
    "lost+found",
    "$recycle.bin",
    "system volume information",
    "__pycache__",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def shown(text: str, most: int = 200) -> str:
    """A text of the user's for a message: one line, printable, not endless."""
    escaped = text[: most + 1].encode("utf-8", "backslashreplace").decode()
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return escaped if len(text) <= most else f"{escaped[:most]}…"


class Some:
    """The first of many things to tell, and how many there are: what is told stays short whatever is sent."""

    def __init__(self, things: Iterable[str] = ()) -> None:
        self.first, self.count = list[str](), 0
        for thing in things:
            self.add(thing)

    def add(self, thing: str) -> None:
        self.count += 1
        if len(self.first) < MOST_TOLD:
            self.first.append(shown(thing, 400))

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        return self.told()

    def told(self, between: str = ", ") -> str:
        more = self.count - len(self.first)
        return between.join(self.first) + (f" and {more:,} more" if more else "")


class Names:
    """Finds a file by a name that may be written otherwise: with backslashes or ./, in another Unicode form or case."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._by_form: dict[str, set[str]] = {}
        for path in self._paths:
            for form in {_composed(path), _folded(path)}:
                self._by_form.setdefault(form, set()).add(path)

    def find(self, name: str, folder: str = "") -> str | None:
        """The path that is meant, relative to `folder` before the data set; None where there is none, or more than one."""
        candidates = list(_candidates(name, folder))
        for path in candidates:
            if path in self._paths:
                return path
        for form in (_composed, _folded):
            for path in candidates:
                if len(meant := self._by_form.get(form(path), set())) == 1:
                    return next(iter(meant))
        return None


def _candidates(name: str, folder: str) -> Iterator[str]:
    for written in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
        if written:
            yield normpath(join(folder, written))
            yield normpath(written)


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files of a data set, by what they are for."""

    sizes: Mapping[str, int]  # bytes, of every file that may be read
    pictures: tuple[str, ...]  # by their suffix
    metadata: tuple[str, ...]
    texts: tuple[str, ...]
    unreadable: Mapping[str, str]  # pictures by name that cannot be read: path -> why, as "is HEIC, which..."
    unnamable: Mapping[str, str]  # pictures that the store's client cannot hold: path, fit to be shown -> why
    passed_over: Mapping[str, Some]  # why -> paths

    def told_passed_over(self) -> str:
        """For the end of a message: a caption or picture that is missed may be among these."""
        told = "; ".join(f"{some.count} {why} ({some})" for why, some in self.passed_over.items())
        return f"; passed over: {told}" if told else ""

    @property
    def names(self) -> Names:
        return Names(self.sizes)


def sort_out(found: Listing) -> Files:
    """Tells a folder's files apart by their names."""
    passed_over: dict[str, Some] = {}
    sizes: dict[str, int] = {}
    for path, why in found.passed_over:
        passed_over.setdefault(_HIDDEN if is_hidden(path) else why, Some()).add(path)
    for entry in found.entries:
        if is_hidden(entry.path):
            passed_over.setdefault(_HIDDEN, Some()).add(entry.path)
        elif entry.path in found.linked_out:
            passed_over.setdefault(_LINKED_OUT, Some()).add(entry.path)
        else:
            sizes[entry.path] = entry.size_bytes
    unnamable = [path for path, why in found.passed_over if why == listing.A_NAME and kinds.is_picture(path) and not is_hidden(path)]
    return _by_kind(sizes, passed_over, {shown(path): _NAME for path in unnamable})


def _by_kind(sizes: Mapping[str, int], passed_over: dict[str, Some], unnamable: Mapping[str, str]) -> Files:
    pictures = [path for path in sizes if kinds.is_picture(path)]
    unreadable = {path: kinds.not_read(kind) for path in sizes if (kind := kinds.unread_kind(path)) is not None}
    stems = {_stem(path) for path in pictures}
    for path in [path for path in unreadable if _stem(path) in stems]:  # the same picture, converted
        del unreadable[path]
        passed_over.setdefault("pictures in a format that is not read, beside the same in one that is", Some()).add(path)
    for path in sizes:
        if (kind := kinds.beside_kind(path)) is not None:
            passed_over.setdefault(f"files that are no pictures to train on ({kind})", Some()).add(path)
    return Files(
        sizes=sizes,
        pictures=tuple(pictures),
        metadata=tuple(sorted((path for path in sizes if _name(path) in METADATA), key=_metadata_order)),
        texts=tuple(path for path in sizes if PurePosixPath(path).suffix.lower() in _TEXT_SUFFIXES),
        unreadable=unreadable,
        unnamable=unnamable,
        passed_over=dict(sorted(passed_over.items())),
    )


def texts_beside(picture: str) -> list[str]:
    """Where the caption of a picture may lie: a.png.txt says more exactly than a.txt whose it is."""
    return [stem + suffix for stem in (picture, _stem(picture)) for suffix in _TEXT_SUFFIXES]


def is_hidden(path: str) -> bool:
    """Whether a file is none of the user's making."""
    parts = [part for part in path.split("/") if part not in {".", ".."}]
    return any(part.startswith(".") or part.lower() in _LEFT_BEHIND for part in parts)


def _metadata_order(path: str) -> tuple[int, str, int]:
    """Those of outer folders first, and of one folder the .jsonl."""
    folder = path.rpartition("/")[0]
    return path.count("/"), folder, METADATA.index(_name(path))


def _name(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)
