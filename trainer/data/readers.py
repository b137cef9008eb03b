"""Reads a data set's pictures and captions from the store: an image folder with metadata.jsonl, metadata.csv or .txt files.

Knows nothing of models: what comes out is names, captions, sizes and content digests.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from trainer.data.decode import Unreadable, check_bytes, unpack
from trainer.data.decode import decode as decode
from trainer.data.kinds import PICTURE_SUFFIXES
from trainer.storage import Folder

READ_AT_ONCE = 64  # files
READ_AT_ONCE_BYTES = 128 * 2**20


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One usable picture of a data set."""

    path: str
    caption: str
    width: int  # pixels, after EXIF rotation
    height: int
    size_bytes: int
    sha256: str  # of the file's bytes
    has_broken_profile: bool  # its colours were taken for sRGB


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
    sizes = {entry.path: entry.size_bytes for entry in folder.list()}
    paths = list(sizes)
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
    inspected = list(_inspect_all(folder, {name: captions[name].strip() for name in names}, sizes))
    data_set = DataSet(
        uri=spec.uri,
        pictures=tuple(each for each in inspected if isinstance(each, Picture)),
        corrupt=tuple(sorted((each for each in inspected if isinstance(each, CorruptPicture)), key=lambda each: each.path)),
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


def read_in_pieces(folder: Folder, sizes: Mapping[str, int]) -> Iterator[dict[str, bytes]]:
    """These files' contents, no more at once than may lie in memory. `sizes` are in bytes, as they were listed."""
    piece: dict[str, int] = {}
    for path, size_bytes in sizes.items():
        if piece and (len(piece) == READ_AT_ONCE or sum(piece.values()) + size_bytes > READ_AT_ONCE_BYTES):
            yield folder.read_all(piece)
            piece = {}
        piece[path] = size_bytes
    if piece:
        yield folder.read_all(piece)


def _inspect_all(folder: Folder, captions: dict[str, str], sizes: Mapping[str, int]) -> Iterator[Picture | CorruptPicture]:
    readable = {}
    for name in sorted(captions):
        try:
            check_bytes(sizes[name])
            readable[name] = sizes[name]
        except Unreadable as error:
            yield CorruptPicture(path=name, why=str(error))
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
        for contents in read_in_pieces(folder, readable):
            yield from pool.map(lambda name: inspect(name, contents[name], captions[name]), contents)  # noqa: B023


def inspect(path: str, content: bytes, caption: str) -> Picture | CorruptPicture:
    """Does to a picture what a worker will, at the smallest size."""
    try:
        found = unpack(content, at_least=(1, 1), fit=lambda picture: picture.resize((1, 1), Image.Resampling.BOX))
    except Unreadable as error:
        return CorruptPicture(path=path, why=str(error))
    return Picture(
        path=path,
        caption=caption,
        width=found.width,
        height=found.height,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        has_broken_profile=found.has_broken_profile,
    )


def _check_corrupt(data_set: DataSet, spec: DatasetSpec) -> None:
    if not data_set.corrupt:
        return
    total = len(data_set.pictures) + len(data_set.corrupt)
    named = _some([f"{each.path} {each.why}" for each in data_set.corrupt])
    found = f"dataset.uri: {len(data_set.corrupt)} of {total} pictures cannot be read: {named}"
    if spec.on_corrupt == "fail" or not data_set.pictures:
        raise RunFailed(found, reason="CORRUPT_PICTURES")
    if len(data_set.corrupt) > spec.max_corrupt_fraction * total:
        raise RunFailed(f"{found}; max_corrupt_fraction allows {spec.max_corrupt_fraction:.0%}", reason="CORRUPT_PICTURES")


def _some(names: list[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
