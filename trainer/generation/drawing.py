"""Draws a request into a folder: each picture as it comes, whole or not at all; what is there already is not drawn again."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lorafleet import __version__
from trainer.generation import files, grid, png_text, sheets
from trainer.generation.adapter import Adapter
from trainer.generation.grid import Cell
from trainer.generation.kept import KeptAdapters
from trainer.generation.request import Request
from trainer.generation.sampler import Picture, Sampler, rows_at_once
from trainer.storage import Folder

ANSWER = "generation.json"


@dataclass
class Drawing:
    """One request into one folder. `is_padded`: whether a picture has the same bits alone and in any grid, which takes whole passes."""

    request: Request
    sampler: Sampler
    folder: Folder
    is_padded: bool = True
    kept: KeptAdapters = field(default_factory=KeptAdapters)
    num_rows_drawn: int = 0
    seconds: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict[str, Any])  # as it was written last

    def draw(self) -> Iterator[tuple[Cell, bool]]:
        """Each picture once it is in the folder, and whether it was drawn now."""
        missing = self._missing()
        there = self._there(missing)
        self._write_answer(there)  # tells, too, whether the folder can be written to
        yield from ((cell, False) for cell in there)
        how = self.request.drawn.how
        num_rows = rows_at_once(how.width, how.height, self.sampler.family)
        for together in grid.passes(missing, num_rows):
            for cell, picture in zip(together, self._drawn(together, num_rows if self.is_padded else len(together)), strict=True):
                self.folder.put(self._name(cell), png_text.encoded(picture, cell.parameters(self.request.drawn)))
                yield cell, True
        self._write_answer(self.request.cells)
        for name, page in sheets.pages(self.request.cells, self._read):
            self.folder.put(name, page)

    def _drawn(self, together: Sequence[Cell], num_rows: int) -> list[Image.Image]:
        start = time.monotonic()
        pictures = [
            Picture(
                prompt=cell.prompt,
                negative_prompt=cell.negative_prompt,
                seed=cell.seed,
                uses=tuple((self._adapter(each), weight) for each, weight in cell.uses),
            )
            for cell in together
        ]
        drawn = self.sampler.draw(pictures, self.request.drawn.how, num_rows=num_rows)
        self.num_rows_drawn += num_rows
        self.seconds += time.monotonic() - start
        return drawn

    def _adapter(self, wanted: files.AdapterOfUri) -> Adapter:
        return self.kept.get(wanted.digest, lambda: files.read(wanted.uri, self.request.base, self.sampler.layers, wanted.digest))

    def _name(self, cell: Cell) -> str:
        return cell.file_name(self.request.drawn)

    def _missing(self) -> list[Cell]:
        there = {entry.path for entry in self.folder.list()}
        return [cell for cell in self.request.cells if self._name(cell) not in there or not self._is_it(cell)]

    def _there(self, missing: Sequence[Cell]) -> list[Cell]:
        absent = set(missing)  # of thousands
        return [cell for cell in self.request.cells if cell not in absent]

    def _is_it(self, cell: Cell) -> bool:
        return png_text.parameters_in(self.folder.get(self._name(cell))) == cell.parameters(self.request.drawn)

    def _read(self, cell: Cell) -> Image.Image:
        return png_text.picture_in(self.folder.get(self._name(cell)))

    # What is told of all

    def _write_answer(self, there: Sequence[Cell]) -> None:
        self.answer = self._answer(there)
        self.folder.put(ANSWER, json.dumps(self.answer, indent=2, ensure_ascii=False).encode())

    def _answer(self, there: Sequence[Cell]) -> dict[str, Any]:
        """`there`: those that are in the folder."""
        request = self.request
        return {
            "version": __version__,
            "request": request.spec.model_dump(mode="json", exclude_none=True),
            "base": {"uri": request.base.uri, "digest": request.base.digest, "family": request.base.family},
            "adapters": [each.plain() for each in request.adapters.values()],
            "num_pictures": len(request.cells),
            "num_missing": len(request.cells) - len(there),
            "seconds": round(self.seconds, 3),
            "num_rows_drawn": self.num_rows_drawn,
            "notes": list(request.notes()),
            "pictures": [self._told(cell) for cell in there],
        }

    def _told(self, cell: Cell) -> Mapping[str, Any]:
        name = self._name(cell)
        sha256 = hashlib.sha256(self.folder.get(name)).hexdigest()
        return {"file": name, "sha256": sha256, **cell.parameters(self.request.drawn)}
