"""Draws the contact sheet of a batch: a row per style, from the sample pictures in each artifact. Needs Pillow."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from lorafleet import output
from lorafleet.blobs import Blobs, opener
from lorafleet.contact_sheet import Row, contact_sheet
from lorafleet.download import committed_manifest, read
from lorafleet.errors import LorafleetError
from lorafleet.states import job_id, label
from lorafleet.v1 import training_service_pb2 as pb

ROWS_A_PAGE = 50
MAX_COLUMNS = 12
CELL = 128  # pixels
AT_ONCE = 8
_SAMPLE = re.compile(r"samples/[^/]+\.png")


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """What was drawn. `missing` names the styles whose pictures should exist but do not, and why."""

    paths: Sequence[Path]
    missing: Sequence[str]


def draw(jobs: Sequence[pb.TrainingJob], folder: Path) -> Sheets:
    """sheet.png, sheet-2.png, ... in `folder`, over those of an earlier call."""
    for old in [path for path in folder.glob("sheet*.png") if re.fullmatch(r"sheet(-\d+)?\.png", path.name)]:
        old.unlink()
    paths, missing, open_at = list[Path](), list[str](), opener()
    for number, begin in enumerate(range(0, len(jobs), ROWS_A_PAGE), start=1):
        page = jobs[begin : begin + ROWS_A_PAGE]
        paths.append(folder / ("sheet.png" if number == 1 else f"sheet-{number}.png"))
        rows = list(_rows(page, open_at, missing))
        contact_sheet(_headings(page, rows), rows, cell=CELL).save(paths[-1])
    return Sheets(paths=paths, missing=missing)


def _rows(jobs: Sequence[pb.TrainingJob], open_at: Callable[[str], Blobs], missing: list[str]) -> Iterator[Row]:
    """A row for each job, in order; notes in `missing` what could not be read."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for job, found in zip(jobs, pool.map(partial(_pictures, open_at=open_at), jobs), strict=True):
            if isinstance(found, str):
                missing.append(f"{job_id(job)}: {found}")
            yield Row(row_label(job), [] if isinstance(found, str) else found)


def _pictures(job: pb.TrainingJob, open_at: Callable[[str], Blobs]) -> list[Image.Image] | str:
    """The artifact's sample pictures, or why there are none."""
    if not job.HasField("artifact"):
        return []
    try:
        blobs = open_at(job.artifact.uri)
        _, manifest = committed_manifest(blobs, job.artifact.manifest_sha256)
        samples = sorted(path for path in manifest.files if _SAMPLE.fullmatch(path))[:MAX_COLUMNS]
        return [_small(read(blobs, path, manifest.files[path])) for path in samples]
    except (LorafleetError, OSError, ValueError, Image.DecompressionBombError) as error:  # Pillow's are OSError and ValueError
        return str(error)


def _small(data: bytes) -> Image.Image:
    """Large pictures shrink at once: a page holds hundreds."""
    picture = Image.open(BytesIO(data)).convert("RGB")
    picture.thumbnail((4 * CELL, 4 * CELL))
    return picture


def row_label(job: pb.TrainingJob) -> str:
    """The style and its loss; of one without artifact, why it has none."""
    held_out = output.held_out(job).replace("→", "to").replace(" (", "\n(")  # Pillow's own font has no arrow
    known = held_out or (f"loss {output.loss(job)}" if output.loss(job) else "")
    lines = [job_id(job), known] if job.HasField("artifact") else [job_id(job), label(job), job.reason]
    return "\n".join(line for line in lines if line)


def _headings(jobs: Sequence[pb.TrainingJob], rows: Sequence[Row]) -> list[str]:
    """The prompts when all styles with pictures have the same; else numbers."""
    columns = max((len(row.pictures) for row in rows), default=0)
    prompts = {tuple(job.spec.validation.prompts) for job, row in zip(jobs, rows, strict=True) if row.pictures}
    same = next(iter(prompts)) if len(prompts) == 1 else ()
    return [same[column] if column < len(same) else f"prompt {column + 1}" for column in range(columns)]
