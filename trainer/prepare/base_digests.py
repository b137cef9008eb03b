"""Digests of a base: of each file, and of its tensors, which are the same however they are stored. Taken once per version. No torch.

The base's own digest is over its tensors by diffusers' name, type, shape and bytes: a checkpoint in one file and the folder that was
made of it, whole or in shards, have the same.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer import untrusted
from trainer.prepare.base_folders import BaseFolders
from trainer.storage import Entry, Folder
from trainer.untrusted import Refused

ENDING = ".safetensors"
# Names that the libraries read as the others: older folders have them.
_OLD_ATTENTION = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_BUFFERS = (".position_ids",)  # no weights: the libraries make them


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Of a base. `files`: SHA-256 by path."""

    files: Mapping[str, str]
    tensors: str


def digests(folder: BaseFolders, versions: Mapping[str, str], cache: Folder) -> Digests:
    """Of these files at these versions. Hashing gigabytes for every small job would cost more than the job: they are remembered."""
    named = ["digests-2", folder.uri, sorted(versions.items()), *sorted(folder.parts.items())]
    where = f"digests/{hashlib.sha256(json.dumps(named).encode()).hexdigest()}.json"
    if known := cache.get_or_none(where):
        return Digests(**json.loads(known))
    found = _taken(folder, versions)
    cache.put(where, json.dumps({"files": found.files, "tensors": found.tensors}).encode())
    return found


def webui_hash(folder: BaseFolders | Folder, weights: Entry) -> str:
    """The eight digits by which the webui once told checkpoints apart: of 64 KiB, one MiB into the file."""
    start = min(2**20, weights.size_bytes)
    length = min(2**16, weights.size_bytes - start)
    return hashlib.sha256(folder.get_range(weights.path, start, length) if length else b"").hexdigest()[:8]


def _taken(folder: BaseFolders, paths: Iterable[str]) -> Digests:
    files: dict[str, str] = {}
    tensors: list[str] = []
    for path in paths:
        whole, inner = hashlib.sha256(), _TensorHashes() if path.endswith(ENDING) else None
        for chunk in folder.chunks(path):
            whole.update(chunk)
            if inner:
                inner.update(chunk)
        files[path] = whole.hexdigest()
        tensors += inner.lines(path.partition("/")[0]) if inner else []
    return Digests(files=files, tensors=hashlib.sha256("".join(sorted(tensors)).encode()).hexdigest())


def name_of(tensor: str) -> str:
    """The one name of a tensor that has had several in folders of diffusers and transformers."""
    match = _OLD_ATTENTION.search(tensor)
    if match:
        tensor = f"{tensor[: match.start()]}{match[1]}.{_NEW_NAMES[match[2]]}.{match[3]}"
    return tensor.removeprefix("text_model.")


class _TensorHashes:
    """Hashes each tensor of a safetensors file on the way through it."""

    def __init__(self) -> None:
        self._start = bytearray()  # until the header is known
        self._tensors: Iterator[tuple[int, int, Any]] | None = None
        self._now: tuple[int, int, Any] | None = None
        self._at = 0  # bytes of data that went by
        self._found: dict[str, tuple[str, list[int], Any]] = {}

    def update(self, chunk: bytes) -> None:
        if self._tensors is not None:
            self._data(memoryview(chunk))
            return
        self._start += chunk
        length = int.from_bytes(self._start[:8], "little")
        if len(self._start) < 8 + min(length, untrusted.MAX_HEADER_BYTES):
            return
        self._begin(bytes(self._start[8 : 8 + length]))
        self._data(memoryview(bytes(self._start[8 + length :])))
        self._start.clear()

    def lines(self, part: str) -> list[str]:
        weights = {name: found for name, found in self._found.items() if not name.endswith(_BUFFERS)}
        return [f"{part}/{name_of(name)}\0{dtype}\0{shape}\0{digest.hexdigest()}\n" for name, (dtype, shape, digest) in weights.items()]

    def _begin(self, header: bytes) -> None:
        entries: dict[str, Any] = untrusted.json_object(header, max_bytes=untrusted.MAX_HEADER_BYTES)
        entries.pop("__metadata__", None)
        places: list[tuple[int, int, Any]] = []
        for name, entry in entries.items():
            digest = hashlib.sha256()
            self._found[name] = entry["dtype"], entry["shape"], digest
            places.append((*entry["data_offsets"], digest))
        self._tensors = iter(sorted(places, key=lambda place: place[:2]))
        self._next()

    def _next(self) -> None:
        self._now = next(self._tensors or iter(()), None)
        if self._now is not None and self._now[0] < self._at:
            raise Refused("has tensors that lie in one another")

    def _data(self, chunk: memoryview) -> None:
        end = self._at + len(chunk)
        while self._now is not None and self._now[0] <= end:
            start, stop, digest = self._now
            digest.update(chunk[max(0, start - self._at) : stop - self._at])
            if stop > end:
                break
            before, self._at = self._at, stop  # for `_next`, which looks for overlaps
            self._next()
            self._at = before
        self._at = end
