"""The adapter files of a request: read, checked against the base, and told apart by digest. All that is wrong is said at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lorafleet.errors import InvalidInput, RunFailed
from trainer.adapters.files import reading, sources
from trainer.adapters.files.contents import AdapterFile
from trainer.adapters.files.sources import Source
from trainer.adapters.layout import Layer
from trainer.adapters.start import sources as of_uri
from trainer.generation import adapter
from trainer.generation.adapter import Adapter
from trainer.generation.kept import KeptAdapters
from trainer.prepare.base_model import BaseModel

BASE_DIGEST = "lorafleet.base_digest"
_ENDING = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class AdapterOfUri:
    """A file that draws with this base."""

    uri: str
    name: str  # for people, and in pictures
    digest: str
    methods: tuple[str, ...]
    ranks: tuple[int, ...]
    trigger_phrase: str
    adds_nothing: bool

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "methods": list(self.methods), "ranks": list(self.ranks)}


def look(
    uris: Sequence[str], base: BaseModel, layers: Mapping[str, Layer], *, on_any_base: bool = False, kept: KeptAdapters | None = None
) -> tuple[dict[str, AdapterOfUri], list[str]]:
    """(those that are good by URI, what is wrong with the others). `on_any_base`: also those that were trained on another one; `kept`:
    where the good ones then are, ready to draw with, as far as there is room."""
    found: dict[str, AdapterOfUri] = {}
    wrong: list[str] = []
    for uri in dict.fromkeys(uris):
        try:
            file, digest = _read(uri, base.family)
        except (InvalidInput, RunFailed, OSError) as why:
            told = str(why)
            wrong.append(told if uri.rpartition("/")[2] in told else f"{uri}: {told}")
            continue
        if problems := list(_problems(file, uri, base, layers, on_any_base=on_any_base)):
            wrong += problems
        else:
            found[uri] = _of(uri, file, digest)
            if kept is not None:
                kept.offer(digest, partial(adapter.prepared, file, digest, layers))
    return found, wrong


def read(uri: str, base: BaseModel, layers: Mapping[str, Layer], digest: str) -> Adapter:
    """One that was looked at. Raises InvalidInput where it is another by now."""
    file, now = _read(uri, base.family)
    if now != digest:
        raise InvalidInput(f"{uri} has changed since it was looked at: start again")
    return adapter.prepared(file, digest, layers)


def _read(uri: str, family: str) -> tuple[AdapterFile, str]:
    given = sources_of(uri)
    return reading.read(given, family), adapter.digest_of(given)


def sources_of(uri: str) -> list[Source]:
    """Raises InvalidInput, RunFailed, OSError."""
    path = Path(uri.removeprefix("file://"))
    return sources.of_path(path) if uri.startswith("file://") and path.is_file() else of_uri(uri)


def _problems(file: AdapterFile, uri: str, base: BaseModel, layers: Mapping[str, Layer], *, on_any_base: bool) -> Iterator[str]:
    trained_on = file.metadata.get(BASE_DIGEST, "")
    if trained_on and trained_on != base.digest and not on_any_base:
        told = f"{uri} was trained on the base {trained_on}, and {base.uri} is {base.digest}"
        yield f"{told}; --force draws with it all the same, where shapes fit"
    yield from adapter.misfits(file, layers, uri)


def _of(uri: str, file: AdapterFile, digest: str) -> AdapterOfUri:
    return AdapterOfUri(
        uri=uri,
        name=uri.rpartition("/")[2].removesuffix(_ENDING),
        digest=digest,
        methods=file.methods,
        ranks=tuple(sorted({module.rank for module in file.modules})),
        trigger_phrase=file.metadata.get("modelspec.trigger_phrase", ""),
        adds_nothing=adapter.adds_nothing(file),
    )
