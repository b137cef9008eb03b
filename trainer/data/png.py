"""A PNG without what Pillow stumbles over: long texts, large profiles, animation; and the transparent colour of unusual depths.

Pillow reads every text chunk of a PNG and refuses the picture when they are long; its pixels need none of them.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 8 * 2**20
_MAX_KEPT_TEXT = 2**18
_KEPT = (b"tRNS", b"eXIf")  # besides the critical chunks, whose type starts with a capital letter
_TEXTS_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0")  # an uncompressed XMP packet; ImageMagick's EXIF
_DEPTH_AT = len(SIGNATURE) + 16  # in the header chunk, which comes first


@dataclass(frozen=True)
class Sound:
    """A PNG that Pillow can take, and what was taken out of it."""

    content: bytes
    profile: bytes | None  # ICC
    bit_depth: int

    @classmethod
    def of(cls, content: bytes) -> "Sound":
        kept, profile = [SIGNATURE], None
        for kind, whole, data in _chunks(content):
            if kind == b"iCCP":
                profile = _unzipped(data)
            elif kind[:1].isupper() or kind in _KEPT or _has_orientation(data):
                kept.append(whole)
        return cls(b"".join(kept), profile, content[_DEPTH_AT] if len(content) > _DEPTH_AT else 8)

    def correct(self, opened: Image.Image) -> None:
        """Pillow leaves the transparent colour in the file's bit depth, and has the pixels in eight bits."""
        found: int | bytes | tuple[int, ...] | None = opened.info.get("transparency")
        if opened.mode == "L" and isinstance(found, int) and self.bit_depth in (2, 4):
            opened.info["transparency"] = found * 255 // (2**self.bit_depth - 1)
        elif opened.mode == "RGB" and isinstance(found, tuple) and self.bit_depth == 16:
            opened.info["transparency"] = tuple(value >> 8 for value in found)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(type, whole chunk, data). A chunk that ends beyond the file comes as it is: Pillow tells what is wrong."""
    at = len(SIGNATURE)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        kind, whole = content[at + 4 : at + 8], content[at:end]
        yield kind, whole, whole[8:-4]
        if kind == b"IEND":
            return
        at = end


def _has_orientation(data: bytes) -> bool:
    return len(data) <= _MAX_KEPT_TEXT and data.startswith(_TEXTS_WITH_ORIENTATION)


def _unzipped(data: bytes) -> bytes:
    """The profile of an iCCP chunk; what cannot be unpacked comes as no bytes, which is no profile either."""
    packed = data.partition(b"\0")[2][1:]
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed, MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacker.eof else b""
