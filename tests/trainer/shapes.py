"""A small data set: pictures of several shapes, so that sizes and crops differ, each with a caption of its own."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((100, 60), (60, 100), (72, 64), (64, 64), (120, 70), (50, 90), (97, 65), (64, 80), (61, 103), (80, 64))  # width, height
SHAPES = ("round", "square")
COLOURS = ("red", "green", "blue")


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, size in enumerate(SIZES):
        name = f"{number:02d}.png"
        _drawn(number, *size).save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": f"{_word(number, COLOURS)} {_word(number, SHAPES)} thing {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def _drawn(number: int, width: int, height: int) -> Image.Image:
    """A slope with a bright spot or bar: what is cut off, turned or scaled otherwise has other pixels."""
    down, across = np.mgrid[0:height, 0:width]
    spot = (across - width * 0.4) ** 2 + (down - height * 0.6) ** 2 < (min(width, height) * 0.3) ** 2
    bar = abs(across - down - number) < 8
    pixels = np.stack([across * 255 // width, down * 255 // height, (across + down) % 97], axis=-1)
    pixels[spot if number % 2 else bar, number % 3] = 255
    return Image.fromarray(pixels.astype(np.uint8))


def _word(number: int, words: tuple[str, ...]) -> str:
    return words[number % len(words)]
