"""Weights read from a store straight into tensors: by range, in the order of their files, each file digested on the way.

What is held of them at a time is what `ranges` holds, and the one tensor that is being filled.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.errors import RunFailed
from trainer import ranges, untrusted
from trainer.ranges import Object
from trainer.untrusted import Refused, Stored

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
}


class WeightStream:
    """The tensors of safetensors files in a store, by name; whoever goes through them reads them once more."""

    def __init__(self, files: Mapping[str, Object], sha256: Mapping[str, str]) -> None:
        """`files`, and what their content must be, by the same paths."""
        self._files, self._sha256 = files, sha256

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Raises RunFailed where a file is not what it was, if need be after its last tensor, and Refused where it makes no sense."""
        with closing(ranges.of_all(self._files.values())) as pieces:
            for path, each in self._files.items():
                digest = _Digest()
                yield from _tensors(_Bytes(digest.passing(islice(pieces, each.num_ranges))), each.entry.size_bytes)
                if digest.hex() != self._sha256[path]:
                    raise _changed(each, was=self._sha256[path], now=digest.hex())


def _changed(file: Object, was: str, now: str) -> RunFailed:
    message = f"base_model.uri: {file.uri} changed while it was read: its SHA-256 was {was}, now it is {now}; try again"
    return RunFailed(message, reason="BASE_MODEL_CHANGED", retryable=True)


class _Digest:
    """SHA-256 in a thread of its own, at most one piece behind."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def passing(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        behind: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
            for piece in pieces:
                if behind is not None:
                    behind.result()
                behind = pool.submit(self._sha256.update, piece)
                yield piece

    def hex(self) -> str:
        return self._sha256.hexdigest()


class _Bytes:
    """Pieces as one run of bytes, taken from the front."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces, self._piece, self.at = pieces, memoryview(b""), 0

    def take(self, length: int) -> bytes:
        found = np.empty(length, np.uint8)
        self.fill(found)
        return found.tobytes()

    def fill(self, target: np.ndarray[Any, Any]) -> None:
        done = 0
        while done < len(target):
            if not self._piece:
                self._piece = next(self._pieces)
            part = self._piece[: len(target) - done]
            target[done : done + len(part)] = np.frombuffer(part, np.uint8)
            done, self._piece = done + len(part), self._piece[len(part) :]
        self.at += len(target)

    def end(self) -> None:
        """To be called when all was taken: what passes the pieces on comes to its end."""
        for _ in self._pieces:
            raise Refused("has bytes after its last tensor")


def _tensors(file: _Bytes, size_bytes: int) -> Iterator[tuple[str, Tensor]]:
    length = int.from_bytes(file.take(8), "little")
    if not 0 < length <= min(size_bytes - 8, untrusted.MAX_HEADER_BYTES):
        raise Refused("is not a safetensors file")
    stored = untrusted.tensors(file.take(length), size_bytes - 8 - length)
    for name, each in sorted(stored.items(), key=lambda item: (item[1].start, item[1].end)):
        yield name, _filled(file, each, start=8 + length)
    file.end()


def _filled(file: _Bytes, stored: Stored, start: int) -> Tensor:
    if (gap := start + stored.start - file.at) < 0:
        raise Refused("has tensors that lie in one another")
    file.take(gap)
    whole = torch.empty(stored.end - stored.start, dtype=torch.uint8)
    file.fill(whole.numpy())
    return whole.view(DTYPES[stored.dtype]).reshape(stored.shape)
