"""Restyles a folder of captioned pictures, so that one data set makes many "customer styles". It knows no training.

    python examples/restyle.py STYLE SOURCE_DIR OUT_DIR
    python examples/restyle.py --list

SOURCE_DIR holds pictures and a metadata.jsonl (file_name, text); OUT_DIR gets PNGs and the same captions. The phrase
that will call the style up is the training spec's to add.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

METADATA = "metadata.jsonl"

Style = Callable[[Image.Image], Image.Image]
Colour = tuple[int, int, int]
Pixels = NDArray[np.floating]  # (height, width, 3) or (height, width), 0 to 1

WHITE: Colour = (255, 255, 255)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class RestyleError(Exception):
    """What the user gave cannot be restyled; the message says what and where."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.list:
        print("\n".join(STYLES))
        return 0
    try:
        count = restyle(options.style, options.source_dir, options.out_dir)
    except RestyleError as error:
        print(f"restyle: {error}", file=sys.stderr)
        return 2
    print(f"{count} pictures in style {options.style} written to {options.out_dir}")
    return 0


def restyle(style: str, source_dir: Path, out_dir: Path, which: slice = slice(None)) -> int:
    """Write the pictures of `source_dir` to `out_dir` in `style`, captions kept; returns how many. Safe to repeat.

    `which` of them, in the order of the metadata: all unless told otherwise. Raises RestyleError, before anything is
    written, where the style, the metadata or a picture is missing.
    """
    if style not in STYLES:
        raise RestyleError(f'no style "{style}"; styles: {", ".join(STYLES)}')
    if source_dir.resolve() == out_dir.resolve():
        raise RestyleError(f"OUT_DIR is SOURCE_DIR ({source_dir}): the originals would be lost; name another folder")
    rows = read_metadata(source_dir)[which]
    if not rows:
        raise RestyleError(f"{source_dir}: no picture is left by {which}")

    written = [_restyle_one(STYLES[style], row, source_dir, out_dir) for row in rows]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in written)
    (out_dir / METADATA).write_text("".join(lines), encoding="utf-8")
    return len(written)


def read_metadata(folder: Path) -> list[dict[str, Any]]:
    """The rows of `folder`'s metadata.jsonl, each naming a picture that is there.

    Raises RestyleError naming the line at fault.
    """
    path = folder / METADATA
    if not path.is_file():
        raise RestyleError(f"{path}: no such file; one JSON object a line is expected, with file_name and text")

    rows: list[dict[str, Any]] = []
    stems: set[PurePosixPath] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = _metadata_row(line, where=f"{path}:{number}")
        name = PurePosixPath(row["file_name"])
        if name.is_absolute() or ".." in name.parts or not (folder / name).is_file():
            raise RestyleError(f"{path}:{number}: {name} is not a picture in {folder}")
        if name.with_suffix("") in stems:
            raise RestyleError(f"{path}:{number}: a second picture would be written to {name.with_suffix('.png')}")
        stems.add(name.with_suffix(""))
        rows.append(row)
    if not rows:
        raise RestyleError(f"{path}: names no pictures")
    return rows


# The styles: each takes an RGB picture on a white ground and returns one of the same size.


def sepia(picture: Image.Image) -> Image.Image:
    return toned(picture, (52, 28, 12), (250, 236, 208))


def toned(picture: Image.Image, dark: Colour, light: Colour) -> Image.Image:
    """Brightness alone, drawn from `dark` to `light`."""
    return ImageOps.colorize(ImageOps.autocontrast(picture.convert("L")), dark, light)


def poster(picture: Image.Image, ground: Colour, levels: int = 4) -> Image.Image:
    """Few flat colours, printed on a coloured ground."""
    flat = ImageOps.posterize(picture, bits=levels.bit_length() - 1)
    stretched = np.minimum(_pixels(flat) * levels / (levels - 1), 1)  # posterize keeps low ends: white would turn grey
    return _picture(_on_ground(picture, stretched, ground))


def comic(picture: Image.Image, ground: Colour) -> Image.Image:
    """A poster with its edges inked."""
    ink = _edges(picture)[..., None]
    return _picture(_pixels(poster(picture, ground)) * (1 - ink))


def sticker(picture: Image.Image, ground: Colour) -> Image.Image:
    """The figure, made smaller, with a broad white rim on a coloured ground."""
    rim = max(picture.width // 24, 1)
    inset = picture.width // 8
    small = picture.resize((picture.width - 2 * inset, picture.height - 2 * inset), Image.Resampling.LANCZOS)
    framed = ImageOps.expand(small, border=inset, fill=WHITE).resize(picture.size)
    cut = figure(framed).filter(ImageFilter.MaxFilter(2 * rim + 1)).filter(ImageFilter.GaussianBlur(rim / 3))
    return Image.composite(framed, Image.new("RGB", picture.size, ground), cut)


def sunset(picture: Image.Image, top: Colour, bottom: Colour) -> Image.Image:
    """The figure before a sky that runs from `top` to `bottom`."""
    height = np.linspace(0, 1, picture.height, dtype=np.float32)[:, None, None]
    sky = np.array(top, np.float32) * (1 - height) + np.array(bottom, np.float32) * height
    return _picture(_on_ground(picture, _pixels(picture), sky))


def turned(picture: Image.Image, degrees: int) -> Image.Image:
    """Every hue turned by the same angle; white, grey and black stay."""
    hue, saturation, value = picture.convert("HSV").split()
    shift = round(degrees * 256 / 360)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def pixels(picture: Image.Image, across: int = 16) -> Image.Image:
    """Blocks, `across` of them in a row."""
    rows = max(round(across * picture.height / picture.width), 1)
    blocks = picture.resize((across, rows), Image.Resampling.BOX)
    return blocks.resize(picture.size, Image.Resampling.NEAREST)


def ink(picture: Image.Image, paper: Colour = WHITE, pen: Colour = (24, 24, 32)) -> Image.Image:
    """Outlines alone, drawn with `pen` on `paper`."""
    lines = _edges(picture)[..., None]
    return _picture(_unit(paper) * (1 - lines) + _unit(pen) * lines)


def halftone(picture: Image.Image, dot: Colour, paper: Colour) -> Image.Image:
    """Dots on a grid turned by 45 degrees, larger where the picture is darker."""
    period = picture.width / 11
    y, x = np.mgrid[: picture.height, : picture.width].astype(np.float32) * (2 * np.pi / period)
    screen = 0.5 + 0.25 * (np.cos(x + y) + np.cos(x - y))  # 1 at the middle of a dot, 0 between dots
    darkness = 1 - _brightness(picture.filter(ImageFilter.GaussianBlur(period / 4)))
    cover = np.clip((darkness * 1.1 - (1 - screen)) * 6 + 0.5, 0, 1)[..., None]
    return _picture(_unit(dot) * cover + _unit(paper) * (1 - cover))


def woodcut(picture: Image.Image, dye: Colour, paper: Colour) -> Image.Image:
    """Two tones: what is darker than the picture's own middle, and every edge, is dye."""
    light = _brightness(picture)
    inside = light[np.asarray(figure(picture)) > 0]
    middle = float(np.median(inside)) if inside.size else 0.5
    cover = np.maximum(np.clip((middle - light) * 12 + 0.5, 0, 1), _edges(picture))[..., None]
    return _picture(_unit(dye) * cover + _unit(paper) * (1 - cover))


def watercolour(picture: Image.Image) -> Image.Image:
    """Colours run into each other and dry darker at their edges, on rough-white paper."""
    wash = picture.filter(ImageFilter.MedianFilter(5)).filter(ImageFilter.GaussianBlur(picture.width / 50))
    rim = _edges(wash)[..., None] * 0.35
    pale = 0.35 + 0.65 * _pixels(wash)
    return _picture(pale * _unit((255, 250, 240)) * (1 - rim))


def emboss(picture: Image.Image) -> Image.Image:
    """A grey relief lit from the upper left."""
    light = _brightness(picture.filter(ImageFilter.GaussianBlur(picture.width / 90)))
    slope: Pixels = np.sum(np.gradient(light), axis=0)
    relief = np.clip(0.62 - 2.2 * slope, 0, 1)[..., None]
    return _picture(relief * _unit((238, 240, 250)))


def thermal(picture: Image.Image) -> Image.Image:
    """As a heat camera would show it: bright is cold, dark is hot."""
    heat = 1 - _brightness(picture)
    stops = np.array([0, 0.25, 0.5, 0.75, 1])
    colours = np.array([(24, 16, 84), (128, 20, 140), (228, 60, 80), (252, 164, 40), (255, 252, 190)]) / 255
    return _picture(np.stack([np.interp(heat, stops, channel) for channel in colours.T], axis=-1))


def mosaic(picture: Image.Image, grout: Colour = (246, 240, 226), across: int = 11) -> Image.Image:
    """Square tiles with light joints between them."""
    tiles = _pixels(pixels(picture, across))
    y, x = (np.arange(size) * across / picture.width % 1 for size in (picture.height, picture.width))
    joint = (y < 0.18)[:, None] | (x < 0.18)[None, :]
    return _picture(np.where(joint[..., None], _unit(grout), tiles))


STYLES: dict[str, Style] = {
    "poster-coral": partial(poster, ground=(255, 160, 130)),
    "poster-mint": partial(poster, ground=(140, 225, 190)),
    "poster-lilac": partial(poster, ground=(200, 170, 245)),
    "comic": partial(comic, ground=(255, 214, 64)),
    "sticker": partial(sticker, ground=(64, 156, 255)),
    "sunset": partial(sunset, top=(255, 120, 150), bottom=(255, 220, 120)),
    "sepia": sepia,
    "duotone-navy-rose": partial(toned, dark=(24, 24, 96), light=(255, 190, 190)),
    "duotone-forest-lime": partial(toned, dark=(8, 60, 48), light=(225, 250, 150)),
    "duotone-plum-sky": partial(toned, dark=(92, 8, 84), light=(170, 225, 255)),
    "duotone-crimson-sand": partial(toned, dark=(150, 8, 32), light=(250, 228, 180)),
    "turned-120": partial(turned, degrees=120),
    "turned-240": partial(turned, degrees=240),
    "pixels": pixels,
    "mosaic": mosaic,
    "ink": ink,
    "blueprint": partial(ink, paper=(28, 78, 168), pen=(235, 244, 255)),
    "woodcut": partial(woodcut, dye=(40, 28, 24), paper=(240, 222, 190)),
    "stamp": partial(woodcut, dye=(200, 32, 48), paper=(255, 252, 246)),
    "halftone": partial(halftone, dot=(0, 84, 160), paper=(255, 244, 214)),
    "watercolour": watercolour,
    "emboss": emboss,
    "thermal": thermal,
    "negative": ImageOps.invert,
}


# What the styles are made of.


def figure(picture: Image.Image) -> Image.Image:
    """Mask ("L", 255 on the figure) of all but the white that reaches the picture's border."""
    framed = ImageOps.expand(picture, border=1, fill=WHITE)
    marker: Colour = (255, 0, 254)
    ImageDraw.floodfill(framed, (0, 0), marker, thresh=24)
    outside = (np.asarray(framed) == marker).all(axis=-1)[1:-1, 1:-1]
    return Image.fromarray(np.where(outside, 0, 255).astype(np.uint8))


def _on_ground(picture: Image.Image, drawn: Pixels, ground: Colour | Pixels) -> Pixels:
    """`drawn` within the figure of `picture`, on `ground` around it.

    The figure's outermost pixels are mixed with the white behind them, so they are multiplied with the ground.
    """
    core = np.asarray(figure(picture).filter(ImageFilter.MinFilter(3)))[..., None] > 0
    return np.where(core, drawn, drawn * _unit(ground))


def _edges(picture: Image.Image) -> Pixels:
    """How much of an edge each pixel is, 0 to 1: the steepest of the three channels' slopes."""
    down, across = np.gradient(_pixels(picture.filter(ImageFilter.GaussianBlur(picture.width / 110))), axis=(0, 1))
    steepness = np.hypot(down, across).max(axis=-1)
    return np.clip(steepness * 6 - 0.35, 0, 1)


def _brightness(picture: Image.Image) -> Pixels:
    return _pixels(picture) @ LUMA


def _unit(colour: Colour | Pixels) -> Pixels:
    return np.asarray(colour, dtype=np.float32) / 255


def _pixels(picture: Image.Image) -> Pixels:
    return _unit(np.asarray(picture, dtype=np.float32))


def _picture(values: Pixels) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


# The shell.


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Restyle a folder of captioned pictures.")
    parser.add_argument("style", nargs="?", metavar="STYLE", help="see --list")
    parser.add_argument("source_dir", nargs="?", metavar="SOURCE_DIR", type=Path, help=f"pictures and {METADATA}")
    parser.add_argument("out_dir", nargs="?", metavar="OUT_DIR", type=Path, help="made where missing")
    parser.add_argument("--list", action="store_true", help="name the styles and stop")
    options = parser.parse_args(arguments)
    if not options.list and options.out_dir is None:
        parser.error("STYLE, SOURCE_DIR and OUT_DIR are needed; --list names the styles")
    return options


def _metadata_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RestyleError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise RestyleError(f'{where}: no "file_name"; expected {{"file_name": "cat.png", "text": "..."}}')
    return row


def _restyle_one(style: Style, row: dict[str, Any], source_dir: Path, out_dir: Path) -> dict[str, Any]:
    name = PurePosixPath(row["file_name"]).with_suffix(".png")
    target = out_dir / name
    target.parent.mkdir(parents=True, exist_ok=True)
    style(_opened(source_dir / row["file_name"])).save(target, format="PNG")
    return {**row, "file_name": str(name)}


def _opened(path: Path) -> Image.Image:
    """The picture as RGB, laid on white where it is transparent."""
    try:
        with Image.open(path) as picture:
            drawn = picture.convert("RGBA")
    except OSError as error:
        raise RestyleError(f"{path}: not a picture that can be read ({error})") from error
    return Image.alpha_composite(Image.new("RGBA", drawn.size, WHITE), drawn).convert("RGB")


if __name__ == "__main__":
    sys.exit(main())
