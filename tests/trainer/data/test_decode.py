"""Bytes to pixels: every mode and profile comes out right, and nothing that a file says takes more than its bounds."""

import io
import subprocess
import sys
import threading
import tracemalloc
import zlib
from typing import Literal

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image, ImageCms, PngImagePlugin

from tests.trainer.pictures import chunk, grey_png, plain, saved, with_chunk
from trainer.data import decode
from trainer.data.decode import Budget, UnreadablePicture, unpack

RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
WHITE = (255, 255, 255)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode.decode(content)).astype(int)


def why(content: bytes) -> str:
    with pytest.raises(UnreadablePicture) as caught:
        decode.decode(content)
    return str(caught.value)


# Modes


GREYS = {
    "png, 16 bits": saved(Image.fromarray(RAMP.astype(np.uint16))),
    "tiff, 16 bits, big-endian": saved(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "tiff, 32 bits": saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "tiff, floats to 1": saved(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"),
    "tiff, floats to 65535": saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", GREYS)
def test_a_grey_ramp_is_a_ramp_in_every_depth(kind: str):
    expected = np.rint(RAMP / 257)
    assert np.abs(pixels(GREYS[kind])[..., 0] - expected).max() <= 1


def test_grey_that_is_no_number_is_black():
    values = np.array([[np.nan, np.inf, -np.inf, -5, 1.0]], np.float32)
    assert pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 0, 255]


TRANSPARENT = {
    "16 bits": grey_png(2, 1, depth=16, rows=b"\0\x12\x34\x80\x80", transparent=0x1234),
    "8 bits": grey_png(2, 1, depth=8, rows=b"\0\x12\x80", transparent=0x12),
    "4 bits": grey_png(2, 1, depth=4, rows=b"\0\x38", transparent=0x3),
    "2 bits": grey_png(2, 1, depth=2, rows=b"\0\x10", transparent=0x0),
    "1 bit": grey_png(2, 1, depth=1, rows=b"\0\x40", transparent=0x0),
}


@pytest.mark.parametrize("depth", TRANSPARENT)
def test_the_transparent_grey_is_white_and_no_other_is(depth: str):
    first, second = pixels(TRANSPARENT[depth])[0]
    assert tuple(first) == WHITE
    assert tuple(second) != WHITE or depth == "1 bit"


def test_the_transparent_colour_of_sixteen_bits_is_white():
    header = chunk(b"IHDR", b"\0\0\0\2\0\0\0\1\x10\2\0\0\0")
    rows = b"\0" + b"\x10\x00\x20\x00\x30\x00" + b"\x40\x00\x50\x00\x60\x00"
    body = chunk(b"tRNS", b"\x10\x00\x20\x00\x30\x00") + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    first, second = pixels(b"\x89PNG\r\n\x1a\n" + header + body)[0]
    assert tuple(first) == WHITE
    assert tuple(second) == (0x40, 0x50, 0x60)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pictures_are_put_on_white(mode: str):
    assert tuple(pixels(plain(mode=mode))[0, 0]) == WHITE


def test_a_palette_with_an_alpha_for_each_entry_is_put_on_white():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    first, second = pixels(saved(picture, transparency=b"\x00\xff"))[0]
    assert tuple(first) == WHITE
    assert tuple(second) == (40, 50, 60)


EVERY_FORMAT = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")


@pytest.mark.parametrize("file_format", EVERY_FORMAT)
def test_every_named_format_is_read_by_its_content(file_format: str):
    assert np.abs(pixels(plain((32, 16), "RGB", file_format, (200, 40, 90)))[3, 3] - (200, 40, 90)).max() <= 12


def test_the_first_frame_of_an_animation_is_taken():
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for file_format in ("GIF", "PNG", "WEBP"):
        content = saved(red, file_format, save_all=True, append_images=[blue])
        assert pixels(content)[4, 4] == pytest.approx((255, 0, 0), abs=3)


# Orientation


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("at_least", [None, (8, 20)])
def test_a_picture_is_upright_as_its_exif_says(file_format: str, at_least: tuple[int, int] | None):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held with its right side down
    lying = Image.new("RGB", (400, 160), "blue")
    lying.paste("red", (0, 0, 200, 160))
    found = unpack(saved(lying, file_format, exif=exif), at_least=at_least)
    assert (found.width, found.height) == (160, 400)
    assert found.picture.width < found.picture.height
    red = found.picture.getpixel((found.picture.width // 2, 2))
    assert red == pytest.approx((255, 0, 0), abs=12)


def test_a_png_keeps_the_orientation_of_its_texts():
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = with_chunk(plain((8, 6)), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    assert (unpack(content).width, unpack(content).height) == (6, 8)


def test_a_jpeg_is_decoded_no_smaller_than_twice_what_is_asked_for():
    content = plain((1600, 800), file_format="JPEG")
    assert decode.decode(content, at_least=(200, 100)).size == (400, 200)
    assert decode.decode(content, at_least=(201, 100)).size == (800, 400)


# Colour profiles


def profile_of(name: Literal["sRGB", "LAB"]) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def swapped_profile() -> bytes:
    """sRGB with red's and blue's primaries exchanged: a strong profile, for a test without files."""
    data = bytearray(profile_of("sRGB"))
    tags = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(data[128:132]), 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_colour_profile_is_converted_to_srgb(file_format: str):
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    tagged = pixels(saved(red, file_format, icc_profile=swapped_profile()))[8, 8]
    assert tagged[2] > 200
    assert tagged[0] < 60
    same = pixels(saved(red, file_format, icc_profile=profile_of("sRGB")))[8, 8]
    assert same == pytest.approx((250, 10, 10), abs=4)


@pytest.mark.parametrize("broken", [b"no profile", profile_of("LAB"), b"\0" * 200])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_broken_profile_is_ignored_and_said(broken: bytes, file_format: str):
    found = unpack(saved(Image.new("RGB", (8, 8), (250, 10, 10)), file_format, icc_profile=broken))
    assert found.has_broken_profile
    assert found.picture.getpixel((4, 4)) == pytest.approx((250, 10, 10), abs=4)
    assert not unpack(plain()).has_broken_profile


def test_a_profile_that_unpacks_to_a_gibibyte_is_ignored():
    bomb = with_chunk(plain(), b"iCCP", b"name\0\0" + zlib.compress(bytes(64 * 2**20)))
    assert unpack(bomb).has_broken_profile


def test_grey_with_a_profile_of_colours_is_converted():
    content = saved(Image.new("L", (8, 8), 100), "JPEG", icc_profile=swapped_profile())
    assert not unpack(content).has_broken_profile


# Bounds


def test_a_png_with_long_texts_is_sound():
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 3_000_000, zip=True)
    texts.add_text("prompt", "y" * 70_000_000)
    assert decode.decode(saved(Image.new("RGB", (8, 6)), pnginfo=texts)).size == (8, 6)


def test_a_picture_of_too_many_pixels_is_refused_from_its_header():
    flat = with_size(plain(mode="1"), 12_000, 12_000)
    tracemalloc.start()
    assert "12000 x 12000 pixels, and at most 100,000,000" in why(flat)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert "pixels" in why(with_size(plain(mode="1"), 2**31 - 1, 2**31 - 1))


def with_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header: its pixels are never reached."""
    header = width.to_bytes(4) + height.to_bytes(4) + png[24:29]
    return png[:8] + chunk(b"IHDR", header) + png[33:]


def test_a_picture_that_unpacks_to_too_much_is_refused_though_its_pixels_would_do():
    assert "to unpack 9500 x 9500 pixels" in why(with_size(plain(mode="RGBA"), 9_500, 9_500))


def test_a_file_of_too_many_bytes_is_refused():
    assert "has 101 MiB, and at most 100 are read" in why(bytes(101 * 2**20))


def test_a_progressive_jpeg_of_many_scans_is_refused():
    content = saved(Image.new("RGB", (3000, 3000)), "JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    assert decode.decode(content, at_least=(8, 8)).width < 3000
    assert "too many scans" in why(content[:scan] + content[scan:-2] * 300 + content[-2:])


def test_postscript_under_a_pictures_name_starts_no_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_args, **_kwargs: pytest.fail("it was started"))
    eps = io.BytesIO()
    Image.new("RGB", (8, 6)).save(eps, "EPS")
    assert "is PostScript, which is not read" in why(eps.getvalue())


@pytest.mark.parametrize("file_format", ["PPM", "TGA", "PCX", "ICO", "SGI", "PDF", "JPEG2000", "DDS", "ICNS"])
def test_no_other_format_reaches_a_decoder(file_format: str):
    assert "read" in why(plain((16, 16), file_format=file_format))


STRANGERS = {
    b"": "is empty",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "is HEIC",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "Git LFS pointer",
    b"<!DOCTYPE html><title>403": "a web page",
    b"8BPS\0\1": "Photoshop",
    b"words": "no picture of a kind that is read",
}


@pytest.mark.parametrize("content", STRANGERS)
def test_what_is_no_picture_is_called_by_its_name(content: bytes):
    assert STRANGERS[content] in why(content)


@pytest.mark.parametrize("file_format", EVERY_FORMAT)
def test_half_a_picture_is_unreadable(file_format: str):
    content = saved(Image.effect_noise((64, 64), 90).convert("RGB"), file_format)
    assert why(content[: len(content) // 2])


def test_pictures_in_flight_stay_within_the_budget_and_a_larger_one_goes_alone():
    budget, seen, at_once = Budget(100), [], threading.Lock()
    held = 0

    def use(size: int) -> None:
        nonlocal held
        with budget.hold(size):
            with at_once:
                held += min(size, 100)
                seen.append(held)
            threading.Event().wait(0.001)
            with at_once:
                held -= min(size, 100)

    users = [threading.Thread(target=use, args=(size,)) for size in (40, 60, 30, 1000, 70, 50, 90, 10)]
    for user in users:
        user.start()
    for user in users:
        user.join(timeout=10)
    assert len(seen) == len(users)
    assert max(seen) <= 100


def test_a_failed_picture_gives_its_budget_back():
    before = decode._in_flight._free
    why(saved(Image.effect_noise((64, 64), 90))[:400])
    assert decode._in_flight._free == before


def test_what_pictures_took_is_handed_back_by_every_thread():
    script = """
import io
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from trainer.data import decode
decode._in_flight = decode.Budget(1)
buffer = io.BytesIO()
Image.new("RGB", (3500, 3500)).save(buffer, "PNG", compress_level=1)
tiny = lambda picture: picture.resize((1, 1), Image.Resampling.BOX)
with ThreadPoolExecutor(6) as pool:
    list(pool.map(lambda _: decode.decode(buffer.getvalue(), fit=tiny), range(6)))
status = Path("/proc/self/status").read_text()  # ru_maxrss begins with that of the process that started this one
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""
    peak_mib = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    assert peak_mib < 250  # one picture has 47 MiB
