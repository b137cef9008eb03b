"""Grids of pictures as pictures: one page, or as many as a large grid needs."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from PIL import Image

from lorafleet.contact_sheet import Row, contact_sheet
from trainer.generation.grid import Cell

T = TypeVar("T")
MOST_COLUMNS, MOST_ROWS = 12, 24  # of a page


def pages(cells: Sequence[Cell], read: Callable[[Cell], Image.Image]) -> Iterator[tuple[str, bytes]]:
    """(name, PNG): prompts side by side, or of one prompt its seeds; below each other what differs besides."""
    one_prompt = len({cell.prompt_number for cell in cells}) == 1
    seeds = len({cell.seed for cell in cells})

    def column(cell: Cell) -> str:
        return f"seed {cell.seed}" if one_prompt else cell.prompt

    def row(cell: Cell) -> tuple[int, int, str]:
        with_seed = f"{cell.label}\nseed {cell.seed}" if seeds > 1 and not one_prompt else cell.label
        return cell.variant, 0 if one_prompt else cell.seed, with_seed

    found = {(row(cell), column(cell)): cell for cell in cells}
    places = [
        (rows, columns)
        for rows in _parts(list(dict.fromkeys(map(row, cells))), MOST_ROWS)
        for columns in _parts(list(dict.fromkeys(map(column, cells))), MOST_COLUMNS)
    ]
    for number, (rows, columns) in enumerate(places, start=1):
        drawn = [Row(label[-1], [read(found[label, each]) for each in columns]) for label in rows]
        yield "sheet.png" if len(places) == 1 else f"sheet-{number:03d}.png", _png(contact_sheet(columns, drawn))


def _parts(whole: Sequence[T], most: int) -> list[Sequence[T]]:
    return [whole[start : start + most] for start in range(0, len(whole), most)]


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
