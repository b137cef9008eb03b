"""Pictures for tests, as files' bytes."""

import io
import zlib
from typing import Any

from PIL import Image


def saved(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def plain(size: tuple[int, int] = (8, 6), mode: str = "RGB", file_format: str = "PNG", colour: Any = 0) -> bytes:
    return saved(Image.new(mode, size, colour), file_format)


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """The same PNG with a chunk more, before its pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + chunk(kind, data) + png[at:]


def grey_png(width: int, height: int, *, depth: int, rows: bytes, transparent: int | None = None) -> bytes:
    """A grey PNG of any bit depth; `rows` are its bytes, each row with its filter byte before it."""
    header = chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + bytes([depth, 0, 0, 0, 0]))
    colour = chunk(b"tRNS", transparent.to_bytes(2)) if transparent is not None else b""
    return b"\x89PNG\r\n\x1a\n" + header + colour + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
