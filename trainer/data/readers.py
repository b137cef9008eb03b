"""Reads a data set's pictures and captions from the store: an image folder with metadata.jsonl, metadata.csv or .txt files.

Knows nothing of models: what comes out is names, captions, sizes and content digests.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image, ImageOps

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from trainer.storage import Folder

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
MAX_PIXELS = 200_000_000  # a picture that unpacks to more is a mistake or an attack
READ_AT_ONCE = 64  # pictures held in memory while their digests are taken


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One usable picture of a data set."""

    path: str
    caption: str
    width: int  # pixels, after EXIF rotation
    height: int
    sha256: str  # of the file's bytes


@dataclass(frozen=True, kw_only=True)
class CorruptPicture:
    """A picture that was left out, and why."""

    path: str
    why: str


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The usable pictures, sorted by path, and what was left out."""

    uri: str
    pictures: tuple[Picture, ...]
    corrupt: tuple[CorruptPicture, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over names, contents and captions: the data set wherever it lies."""
        lines = (f"{picture.path}\0{picture.sha256}\0{picture.caption}\n" for picture in self.pictures)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def read(spec: DatasetSpec) -> DataSet:
    """Lists, captions and checks every picture.

    Raises RunFailed: DATASET_EMPTY, CAPTIONS_MISSING, METADATA_INVALID, CORRUPT_PICTURES, or the store's own reasons.
    """
    folder = Folder(spec.uri)
    paths = [entry.path for entry in folder.list()]
    names = [path for path in paths if PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES]
    if not names:
        raise RunFailed(
            f"dataset.uri: {spec.uri} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}) among its {len(paths)} files",
            reason="DATASET_EMPTY",
        )
    captions = read_captions(folder, spec.caption_column, paths)
    without = [name for name in names if not captions.get(name, "").strip()]
    if len(without) == len(names):
        raise RunFailed(
            f"dataset.uri: none of the {len(names)} pictures in {spec.uri} has a caption; put them into metadata.jsonl or metadata.csv "
            f"(file_name, {spec.caption_column}) or a .txt file beside each picture",
            reason="CAPTIONS_MISSING",
        )
    if without:
        raise RunFailed(
            f"dataset.uri: {len(without)} of {len(names)} pictures have no caption: {_some(without)}", reason="CAPTIONS_MISSING"
        )
    if unknown := sorted(captions.keys() - set(names)):
        raise RunFailed(f"dataset.uri: the metadata names files that are not there: {_some(unknown)}", reason="METADATA_INVALID")
    inspected = list(_inspect_all(folder, {name: captions[name].strip() for name in names}))
    data_set = DataSet(
        uri=spec.uri,
        pictures=tuple(each for each in inspected if isinstance(each, Picture)),
        corrupt=tuple(each for each in inspected if isinstance(each, CorruptPicture)),
    )
    _check_corrupt(data_set, spec)
    return data_set


def read_captions(folder: Folder, column: str, paths: list[str]) -> dict[str, str]:
    """Captions by picture path. Raises RunFailed METADATA_INVALID naming the line."""
    if "metadata.jsonl" in paths:
        return dict(_rows(_jsonl(_text("metadata.jsonl", folder.get("metadata.jsonl"))), column, "metadata.jsonl"))
    if "metadata.csv" in paths:
        table = csv.DictReader(io.StringIO(_text("metadata.csv", folder.get("metadata.csv"))))
        rows = ((number, dict[str, object](row)) for number, row in enumerate(table, start=2))
        return dict(_rows(rows, column, "metadata.csv"))
    by_stem = {str(PurePosixPath(path).with_suffix("")): path for path in paths if PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES}
    texts = [path for path in paths if path.endswith(".txt") and path.removesuffix(".txt") in by_stem]
    return {by_stem[path.removesuffix(".txt")]: _text(path, data).strip() for path, data in folder.read_all(texts).items()}


def _text(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunFailed(f"dataset.uri: {path} is not UTF-8: {error}", reason="METADATA_INVALID") from None


def _jsonl(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut at characters that captions may hold
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RunFailed(f"metadata.jsonl line {number}: is not JSON: {error}", reason="METADATA_INVALID") from None
        if not isinstance(row, dict):
            raise RunFailed(f"metadata.jsonl line {number}: is not a JSON object", reason="METADATA_INVALID")
        yield number, row


def _rows(rows: Iterator[tuple[int, dict[str, object]]], column: str, source: str) -> Iterator[tuple[str, str]]:
    for number, row in rows:
        missing = [name for name in ("file_name", column) if not isinstance(row.get(name), str)]
        if missing:
            raise RunFailed(
                f"{source} line {number}: no {' and no '.join(missing)}; it has {', '.join(map(str, row))} "
                "(dataset.caption_column names the caption)",
                reason="METADATA_INVALID",
            )
        yield str(row["file_name"]), str(row[column])


def _inspect_all(folder: Folder, captions: dict[str, str]) -> Iterator[Picture | CorruptPicture]:
    names = sorted(captions)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
        for start in range(0, len(names), READ_AT_ONCE):
            contents = folder.read_all(names[start : start + READ_AT_ONCE])
            yield from pool.map(lambda name: inspect(name, contents[name], captions[name]), contents)  # noqa: B023


def inspect(path: str, content: bytes, caption: str) -> Picture | CorruptPicture:
    """Decodes a picture fully: half a JPEG has a fine header."""
    try:
        picture = decode(content)
    except Exception as error:  # Pillow raises many kinds for broken files
        return CorruptPicture(path=path, why=str(error) or type(error).__name__)
    return Picture(path=path, caption=caption, width=picture.width, height=picture.height, sha256=hashlib.sha256(content).hexdigest())


def decode(content: bytes) -> Image.Image:
    """An upright RGB picture; transparent ones are put on white. Raises what Pillow raises."""
    with Image.open(io.BytesIO(content)) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height} pixels are more than {MAX_PIXELS}")
        opened.load()
        picture = ImageOps.exif_transpose(opened)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            ground = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(ground, picture)
        return picture.convert("RGB")


def _check_corrupt(data_set: DataSet, spec: DatasetSpec) -> None:
    if not data_set.corrupt:
        return
    total = len(data_set.pictures) + len(data_set.corrupt)
    named = _some([f"{each.path} ({each.why})" for each in data_set.corrupt])
    found = f"dataset.uri: {len(data_set.corrupt)} of {total} pictures cannot be read: {named}"
    if spec.on_corrupt == "fail" or not data_set.pictures:
        raise RunFailed(found, reason="CORRUPT_PICTURES")
    if len(data_set.corrupt) > spec.max_corrupt_fraction * total:
        raise RunFailed(f"{found}; max_corrupt_fraction allows {spec.max_corrupt_fraction:.0%}", reason="CORRUPT_PICTURES")


def _some(names: list[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
