"""What a file that is no readable picture is instead: by its first bytes, or by its name. Decodes nothing."""

from pathlib import PurePosixPath

PICTURE_SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .jif .webp .bmp .dib .tif .tiff .gif .avif".split()  # noqa: SIM905
)
_CONVERT = "which is not read; convert it to PNG, JPEG or WebP"

# Photographs in formats that are not read: leaving them out silently would train on the others alone.
_UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".hif", ".heics"), "HEIC"),
    ".jxl": "JPEG XL",
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
}
# Sources and other things that lie beside the pictures made from them.
_BESIDE = {
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "camera raw"),
    **dict.fromkeys((".psd", ".psb", ".xcf", ".kra", ".ai", ".eps", ".ps", ".pdf", ".svg", ".svgz"), "drawing or document"),
    **dict.fromkeys((".tga", ".ico", ".icns", ".ppm", ".pgm", ".pbm", ".pcx", ".dds", ".exr", ".hdr"), "rare picture format"),
    **dict.fromkeys((".mp4", ".mov", ".webm", ".mkv", ".avi"), "video"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".parquet", ".arrow"), "archive or table"),
}

_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run git lfs pull before it is uploaded"),
    (b"%!PS", f"PostScript, {_CONVERT}"),
    (b"\xc5\xd0\xd3\xc6", f"PostScript, {_CONVERT}"),
    (b"%PDF", f"PDF, {_CONVERT}"),
    (b"8BPS", f"a Photoshop file, {_CONVERT}"),
    (b"\xff\x0a", f"JPEG XL, {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"JPEG XL, {_CONVERT}"),
    (b"\0\0\0\x0cjP  ", f"JPEG 2000, {_CONVERT}"),
    (b"\xff\x4f\xff\x51", f"JPEG 2000, {_CONVERT}"),
    (b"PK\x03\x04", "a ZIP archive; upload what is in it"),
    (b"\0\x05\x16\x07", "what macOS keeps beside a file, not the file itself"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_picture(path: str) -> bool:
    return _suffix(path) in PICTURE_SUFFIXES


def unread_kind(path: str) -> str | None:
    """The format of a photograph that is not read, by its name; None: it is none."""
    return _UNREAD.get(_suffix(path))


def beside_kind(path: str) -> str | None:
    """What a file is that usually lies beside pictures, by its name."""
    return _BESIDE.get(_suffix(path))


def not_read(kind: str) -> str:
    return f"is {kind}, {_CONVERT}"


def kind_of(content: bytes) -> str | None:
    """What a file is by its first bytes, with what to do; None where they say nothing."""
    if not content:
        return "empty"
    for start, kind in _STARTS:
        if content.startswith(start):
            return kind
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        return f"HEIC, {_CONVERT}"
    opening = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if opening.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture; was its download refused?"
    if opening.startswith((b"<svg", b"<?xml")):
        return f"SVG or XML, {_CONVERT}"
    return None


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
