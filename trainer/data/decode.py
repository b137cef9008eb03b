"""Bytes to pixels, in one place: only the formats named here reach a decoder, within bounds; out comes an upright sRGB picture.

Knows nothing of stores, captions and models. Whatever is wrong with a picture comes out as Unreadable.
"""

import io
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from PIL import AvifImagePlugin, ExifTags, Image, TiffImagePlugin, WebPImagePlugin

from trainer.data import colour, png
from trainer.data.kinds import kind_of

_LOADED = (AvifImagePlugin, TiffImagePlugin, WebPImagePlugin)  # Pillow itself does so only together with every other decoder that it has
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")  # told by content, never by name; others never reach a decoder
MAX_PICTURE_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_UNPACKED_BYTES = 768 * 2**20  # that one picture may take on its way to RGB
IN_FLIGHT_BYTES = 2**30  # that all pictures being unpacked at the same time may take
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # a progressive JPEG is walked through once a scan, and a scan may be a few bytes

# Bytes for each pixel: of the picture as it is decoded and of its copies until it is scaled, and what some decoders take besides.
_BYTES_OF_MODE = {"1": 2, "L": 2, "P": 10, "PA": 12, "LA": 12, "RGBA": 12, "I;16": 8, "I;16B": 8, "I;16L": 8, "I": 12, "F": 12}
_BYTES_OF_OTHER_MODES = 8
_BYTES_OF_DECODER = {"WEBP": 8, "AVIF": 12}
_BYTES_OF_PROGRESSIVE_JPEG = 6  # all coefficients are kept until the last scan

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # our own bounds are told instead

# glibc hands memory back at once only where it was asked for in pieces beyond 32 MiB: Pillow's usual 16 would stay with each thread.
Image.core.set_block_size(64 * 2**20)

Size = tuple[int, int]
Fit = Callable[[Image.Image], Image.Image]


class UnreadablePicture(Exception):
    """A picture that cannot be used; the message says why, and goes to the user."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An RGB picture, and what was learned on the way."""

    picture: Image.Image
    width: int  # pixels of the whole picture, upright
    height: int
    has_broken_profile: bool  # its colour profile could not be applied, and was ignored


class Budget:
    """Bytes that may be in use at the same time; who wants more than there are takes them all."""

    def __init__(self, total_bytes: int) -> None:
        self._total, self._free, self._changed = total_bytes, total_bytes, Condition()

    @contextmanager
    def hold(self, size_bytes: int) -> Generator[None]:
        held = min(size_bytes, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()


_in_flight = Budget(IN_FLIGHT_BYTES)


def decode(content: bytes, *, at_least: Size | None = None, fit: Fit | None = None) -> Image.Image:
    """An upright sRGB picture; transparent ones are put on white. Raises Unreadable.

    `fit` brings the picture to its size before its colours are converted: the work is then that of the small picture.
    With `at_least`, an upright size, a JPEG may come smaller than it is, and still has twice that size.
    """
    return unpack(content, at_least=at_least, fit=fit).picture


def unpack(content: bytes, *, at_least: Size | None = None, fit: Fit | None = None, take: Fit | None = None) -> Decoded:
    """As `decode`, with what was learned on the way. `take`: what is wanted of the upright picture, in eight bits, but its colours."""
    check_bytes(len(content))
    try:
        return _unpack(content, at_least, fit, take)
    except UnreadablePicture:
        raise
    except MemoryError:
        raise UnreadablePicture("takes more memory than there is; scale it down") from None
    except Image.DecompressionBombError:
        raise UnreadablePicture(_too_many_pixels("more")) from None
    except Exception as error:  # decoders raise many kinds for broken files
        raise UnreadablePicture(_explain(content, error)) from None


def check_bytes(size_bytes: int) -> None:
    """May be asked before a picture is read. Raises Unreadable."""
    if size_bytes > MAX_PICTURE_BYTES:
        raise UnreadablePicture(f"has {size_bytes / 2**20:,.0f} MiB, and at most {MAX_PICTURE_BYTES // 2**20} are read; save it smaller")


def _unpack(content: bytes, at_least: Size | None, fit: Fit | None, take: Fit | None) -> Decoded:
    sound = png.Sound.of(content) if content.startswith(png.SIGNATURE) else None
    with Image.open(io.BytesIO(sound.content if sound else content), formats=FORMATS) as opened:
        whole = opened.size
        _check_pixels(*whole)
        if at_least is not None:
            _draft(opened, at_least)
        with _in_flight.hold(_check_unpacked(opened, content, whole)):
            try:
                turn, picture, is_broken = _pixels(opened, sound, fit, take)
            finally:
                opened.close()  # frees the pixels while they still count; leaving the context only closes the file
    width, height = whole[::-1] if turn in _ON_ITS_SIDE else whole
    return Decoded(picture=picture, width=width, height=height, has_broken_profile=is_broken)


def _pixels(
    opened: Image.Image, sound: png.Sound | None, fit: Fit | None, take: Fit | None
) -> tuple[Image.Transpose | None, Image.Image, bool]:
    """How it was turned, the picture itself, and whether its colour profile was ignored."""
    opened.load()
    if sound is not None:
        sound.correct(opened)
    turn = _turn(opened)
    upright = colour.eight_bits(opened if turn is None else opened.transpose(turn))
    if take is not None:
        taken = take(upright)
        return turn, fit(taken) if fit else taken, False
    profile = sound.profile if sound else opened.info.get("icc_profile")
    return turn, *colour.to_srgb(fit(upright) if fit else upright, profile)


def _draft(opened: Image.Image, at_least: Size) -> None:
    """Lets a JPEG be decoded at a half, a quarter or an eighth, where twice `at_least` remains: no loss that shows."""
    if opened.format in {"JPEG", "MPO"}:
        size = at_least[::-1] if _turn(opened) in _ON_ITS_SIDE else at_least
        opened.draft(None, (2 * size[0], 2 * size[1]))  # pyright: ignore[reportArgumentType]  None: in the mode that it is in


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadablePicture(_too_many_pixels(f"{width} x {height}"))


def _too_many_pixels(found: str) -> str:
    return f"has {found} pixels, and at most {MAX_PIXELS:,} are read; scale it down"


def _check_unpacked(opened: Image.Image, content: bytes, whole: Size) -> int:
    """The bytes that it takes to unpack, estimated from the header. Raises Unreadable."""
    each = _BYTES_OF_MODE.get(opened.mode, _BYTES_OF_OTHER_MODES) + ("transparency" in opened.info) * _BYTES_OF_OTHER_MODES
    taken = opened.width * opened.height * each  # of a JPEG as small as it will come
    around = _BYTES_OF_DECODER.get(opened.format or "", 0)
    if opened.info.get("progressive"):
        around = _BYTES_OF_PROGRESSIVE_JPEG
        if content.count(b"\xff\xda") * whole[0] * whole[1] > MAX_SCANNED_PIXELS:
            raise UnreadablePicture("is a progressive JPEG of too many scans; save it as a plain one")
    taken += whole[0] * whole[1] * around
    if taken > MAX_UNPACKED_BYTES:
        raise UnreadablePicture(
            f"takes about {taken / 2**20:,.0f} MiB to unpack {whole[0]} x {whole[1]} pixels, and may take {MAX_UNPACKED_BYTES // 2**20}; "
            "scale it down"
        )
    return taken


def _turn(loaded: Image.Image) -> Image.Transpose | None:
    """What sets a picture upright, by its EXIF; of a TIFF, Pillow has done it already."""
    try:
        return _TURNS.get(loaded.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None


def _explain(content: bytes, error: Exception) -> str:
    if (kind := kind_of(content)) is not None:
        return f"is {kind}"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"is no picture of a kind that is read ({', '.join(FORMATS)})"
    return f"is broken: {str(error)[:200] or type(error).__name__}"
