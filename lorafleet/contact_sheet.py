"""Draws pictures side by side: one column for each prompt, one row for each style or stage. Needs Pillow; knows no training."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL = 192  # pixels: the demo's pictures are 64 wide, too small to judge
GAP = 12
LABEL_HEIGHT = 44
MIN_MARGIN_WIDTH = 96
LETTER_WIDTH = 8  # of the prompts' font, about
INK = (32, 32, 36)


@dataclass(frozen=True)
class Row:
    """Pictures of one style or stage, in prompt order."""

    label: str
    pictures: Sequence[Image.Image]


def contact_sheet(prompts: Sequence[str], rows: Sequence[Row], *, cell: int = CELL) -> Image.Image:
    """The rows below each other, prompts above, labels at the left."""
    font = ImageFont.load_default(size=15)
    left = _margin(rows, font)
    size = (left + len(prompts) * (cell + GAP) + GAP, LABEL_HEIGHT + len(rows) * (cell + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    for column, prompt in enumerate(prompts):
        text = "\n".join(textwrap.wrap(prompt, width=cell // LETTER_WIDTH)[:2])
        middle = left + column * (cell + GAP) + GAP + cell / 2
        draw.multiline_text((middle, LABEL_HEIGHT / 2), text, fill=INK, font=font, anchor="mm", align="center")
    for index, row in enumerate(rows):
        top = LABEL_HEIGHT + index * (cell + GAP)
        draw.multiline_text((GAP, top + cell / 2), row.label, fill=INK, font=font, anchor="lm")
        for column, picture in enumerate(row.pictures[: len(prompts)]):
            sheet.paste(_scaled(picture, cell), (left + column * (cell + GAP) + GAP, top))
    return sheet


def _margin(rows: Sequence[Row], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Room for the widest label."""
    widths = [font.getbbox(line)[2] for row in rows for line in row.label.splitlines()]
    return max(MIN_MARGIN_WIDTH, round(max(widths, default=0)) + 2 * GAP)


def _scaled(picture: Image.Image, cell: int) -> Image.Image:
    """Whole multiples of small pictures, so that pixels stay pixels; large ones are made to fit."""
    factor = max(1, cell // max(picture.size))
    scaled = picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    return scaled if max(scaled.size) <= cell else ImageOps.contain(scaled, (cell, cell), Image.Resampling.LANCZOS)
