"""Draws pictures side by side: one column for each prompt, one row for each stage. Knows no training."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL = 192  # pixels: the demo's pictures are 64 wide, too small to judge
GAP = 12
LABEL_HEIGHT = 44
MARGIN_WIDTH = 96
INK = (32, 32, 36)


@dataclass(frozen=True)
class Row:
    """Pictures of one stage, in prompt order."""

    label: str
    pictures: Sequence[Image.Image]


def contact_sheet(prompts: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """The rows below each other, prompts above, labels at the left."""
    width = MARGIN_WIDTH + len(prompts) * (CELL + GAP) + GAP
    height = LABEL_HEIGHT + len(rows) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)

    for column, prompt in enumerate(prompts):
        text = "\n".join(textwrap.wrap(prompt, width=24)[:2])
        draw.multiline_text((_left(column) + CELL / 2, LABEL_HEIGHT / 2), text, fill=INK, font=font, anchor="mm", align="center")
    for index, row in enumerate(rows):
        top = LABEL_HEIGHT + index * (CELL + GAP)
        draw.multiline_text((GAP, top + CELL / 2), row.label, fill=INK, font=font, anchor="lm")
        for column, picture in enumerate(row.pictures):
            sheet.paste(_scaled(picture), (_left(column), top))
    return sheet


def _left(column: int) -> int:
    return MARGIN_WIDTH + column * (CELL + GAP) + GAP


def _scaled(picture: Image.Image) -> Image.Image:
    """Whole multiples, so that pixels stay pixels and do not blur."""
    factor = max(1, CELL // max(picture.size))
    scaled = picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    return scaled if max(scaled.size) <= CELL else scaled.resize((CELL, CELL), Image.Resampling.LANCZOS)
