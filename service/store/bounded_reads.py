"""Reads objects that others have written: no more than was asked for, in bounded time. What refuses does so before it reads."""

import time
from typing import BinaryIO

from lorafleet.errors import LorafleetError, Unavailable

MAX_BYTES = 4 * 2**20  # of an object that is read whole: what the control plane reads are small objects, but others write them
BODY_WITHIN_S = 20.0  # each piece of an answer has a timeout of its own, so a slow store could go on for ever
TOO_LARGE = "OBJECT_TOO_LARGE"
_PIECE_BYTES = 2**18


class StoreError(LorafleetError):
    """The store refuses, for a reason that trying again does not mend. `reason` tells which."""

    reason = "STORE_ERROR"


def read_whole(uri: str, body: BinaryIO, size_bytes: int, most_bytes: int) -> bytes:
    """All of it. `size_bytes` is what the store says before anything is read; an object that grows meanwhile is not followed."""
    if size_bytes <= most_bytes and len(data := read(uri, body, most_bytes + 1)) <= most_bytes:
        return data
    raise StoreError(f"{uri} is larger than {most_bytes:,} bytes", reason=TOO_LARGE)


def read(uri: str, body: BinaryIO, most_bytes: int) -> bytes:
    """Up to so many bytes. Raises Unavailable when they take too long together."""
    pieces, left, began_s = list[bytes](), most_bytes, time.monotonic()
    while left > 0 and (piece := body.read(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
        if time.monotonic() - began_s > BODY_WITHIN_S:
            raise Unavailable(f"{uri} could not be read within {BODY_WITHIN_S:.0f} s; try again", reason="STORE_UNREACHABLE")
    return b"".join(pieces)
