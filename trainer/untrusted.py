"""Reads JSON and safetensors headers that strangers wrote: size and depth are known before anything is parsed. No torch, no store.

Whatever the bytes are, what comes out is a plain value within the limits, or Refused, which says why without quoting them.
"""

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, prod
from typing import Never, TypeGuard

import numpy as np
from pydantic import JsonValue

from lorafleet.errors import RunFailed

MAX_CONFIG_BYTES = 2**20
MAX_HEADER_BYTES = 16 * 2**20
MAX_DEPTH = 32  # of configs and headers in the wild: 3
MAX_DIMENSIONS = 8
MAX_SIDE = 2**31
_NAME = re.compile(r"[ -~]{1,1000}")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NARROW = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16}
_BITS = _NARROW | {"U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}  # of a number, by its type


class Refused(ValueError):
    """What is wrong with the bytes, as the end of a sentence whose subject is their file."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor of a safetensors file."""

    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    start: int  # of its bytes, counted from the end of the header
    end: int


@contextmanager
def taken(uri: str) -> Generator[None]:
    """What lies in the folder of an output and was not written by its job ends it: RunFailed OUTPUT_TAKEN for what is Refused."""
    try:
        yield
    except Refused as why:
        raise RunFailed(f"output.uri: {uri} {why}; choose another output.uri, or delete it", reason="OUTPUT_TAKEN") from None


def json_object(text: bytes, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, JsonValue]:
    """A JSON object of finite numbers. Raises Refused."""
    if len(text) > max_bytes:
        raise Refused(f"is {len(text)} bytes long; at most {max_bytes} are read")
    if (depth := nesting(text)) > MAX_DEPTH:
        raise Refused(f"is nested {depth} levels deep; at most {MAX_DEPTH} are read")
    try:
        found: JsonValue = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refused(f"is not JSON{where}") from None
    if not isinstance(found, dict):
        raise Refused("is not a JSON object")
    return found


def nesting(text: bytes) -> int:
    """How deep brackets are nested, found without parsing: a parser that recurses may take the process with it."""
    marks = np.frombuffer(_STRING.sub(b"", text), dtype=np.uint8)
    steps = np.isin(marks, list(b"[{")).astype(np.int32) - np.isin(marks, list(b"]}"))
    return int(np.cumsum(steps).max(initial=0))


def tensors(header: bytes, num_data_bytes: int) -> dict[str, Stored]:
    """The tensors that a safetensors header names, each within the file, with as many bytes as its shape needs. Raises Refused."""
    return stored_in(json_object(header, max_bytes=MAX_HEADER_BYTES), num_data_bytes)


def stored_in(entries: Mapping[str, JsonValue], num_data_bytes: int) -> dict[str, Stored]:
    """The same of a header that was parsed."""
    found = {name: _entry(entry) for name, entry in entries.items() if name != "__metadata__"}
    end = max((stored.end for stored in found.values()), default=0)
    if not found:
        raise Refused("holds no tensors")
    if not all(_NAME.fullmatch(name) for name in found):
        raise Refused("has a tensor whose name is not plain text")
    if end > num_data_bytes:
        raise Refused(f"is cut short: {num_data_bytes} bytes of {end}; upload it again")
    if end < num_data_bytes:
        raise Refused(f"has {num_data_bytes - end} bytes after its last tensor; upload it again")
    return found


def _entry(entry: JsonValue) -> Stored:
    if not isinstance(entry, dict):
        raise Refused("is not a safetensors file: an entry of its header is no object")
    shape, offsets, bits = entry.get("shape"), entry.get("data_offsets"), _bits(entry.get("dtype"))
    if not are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise Refused("is not a safetensors file: a shape in its header is not a short list of sizes")
    if not are_counts(offsets, most=2**62) or len(offsets) != 2:
        raise Refused("is not a safetensors file: a tensor in its header has no place in it")
    if bits is None:
        raise Refused("has a tensor of a type that is not known")
    if offsets[1] - offsets[0] != prod(shape) * bits // 8:
        raise Refused("is not a safetensors file: a tensor's shape and its bytes differ")
    return Stored(dtype=str(entry["dtype"]), shape=tuple(shape), start=offsets[0], end=offsets[1])


def _bits(dtype: JsonValue) -> int | None:
    return _BITS.get(dtype) if isinstance(dtype, str) else None


def are_counts(values: JsonValue, *, most: int = MAX_SIDE) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(is_count(value, most=most) for value in values)


def is_count(value: JsonValue, *, most: int = MAX_SIDE) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= most  # a bool is an int to Python, and none to us


def _no_number(_: str) -> Never:
    raise Refused("holds a number that is not finite")


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise Refused("holds a number that is not finite")
    return number
