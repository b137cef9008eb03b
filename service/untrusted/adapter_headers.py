"""Reads the header of an adapter file: parsed in a process of its own, then told by the names and shapes that are left."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lorafleet.adapter_files.described import Description, described
from service.untrusted.parsing import Parser


class StoredTensor(NamedTuple):
    """Its numbers' type and shape, and its place behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class AdapterHeader:
    """What the file is, and where its tensors lie."""

    description: Description
    tensors: Mapping[str, StoredTensor]

    @property
    def num_data_bytes(self) -> int:
        return max(each.end for each in self.tensors.values())


async def read_header(parser: Parser, header: bytes, num_data_bytes: int | None, family: str) -> AdapterHeader:
    """`num_data_bytes` that follow the header, as far as that is known. Raises as `Parser.parse` does, and InvalidInput for what is no
    adapter."""
    found = await parser.parse("adapter", [header, json.dumps(num_data_bytes).encode()])
    tensors = {name: StoredTensor(dtype, tuple(shape), begin, end) for name, (dtype, shape, begin, end) in found["tensors"].items()}
    shapes = {name: each.shape for name, each in tensors.items()}
    description = await asyncio.to_thread(described, shapes, found["metadata"], family)
    return AdapterHeader(description=description, tensors=tensors)
