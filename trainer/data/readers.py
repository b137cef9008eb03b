"""Reads a data set from the store: its pictures, their captions, and what was left out of it and why.

Knows nothing of models: what comes out is names, captions, sizes and content digests.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from PIL import Image

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from trainer.data import captions, files, masks
from trainer.data.captions import Captions
from trainer.data.decode import FORMATS, UnreadablePicture, check_bytes, unpack
from trainer.data.decode import decode as decode
from trainer.data.files import Files, Some
from trainer.data.masks import Apart, Mask
from trainer.storage import Folder

READ_AT_ONCE = 64  # files
_SAID_OF_ALL = {"dataset.regularization": "caption"}  # what says something of pictures without a caption
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
    mask: Mask | None = None  # None: all of it counts


@dataclass(frozen=True, kw_only=True)
class CorruptPicture:
    """A picture that was left out, and why."""

    path: str
    why: str  # as "is broken: ..."


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The usable pictures, sorted by path, and what was left out."""

    uri: str
    pictures: tuple[Picture, ...]
    corrupt: tuple[CorruptPicture, ...]
    uncaptioned: Some = field(default_factory=Some)  # pictures that on_missing_caption left out, or gave the trigger phrase
    passed_over: Mapping[str, Some] = field(default_factory=dict[str, Some])  # files that are no pictures: what they are -> paths

    @property
    def digest(self) -> str:
        """SHA-256 over names, contents and captions, and masks in files: the data set wherever it lies."""
        lines = (f"{each.path}\0{each.sha256}\0{each.caption}{_mask_in_digest(each)}\n" for each in self.pictures)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _mask_in_digest(picture: Picture) -> str:
    return "" if picture.mask is None or picture.mask.path == picture.path else f"\0{picture.mask.sha256}"


def read(spec: DatasetSpec, field: str = "dataset") -> DataSet:
    """Lists, captions and checks every picture. `field`: of the spec, that asks for them.

    Raises RunFailed with everything that is wrong: DATASET_EMPTY, METADATA_INVALID, CAPTIONS_MISSING, CORRUPT_PICTURES, MASKS_MISSING, or
    the store's own reasons.
    """
    folder = Folder(spec.uri)
    there = files.sort_out(folder.scan())
    masked = masks.apart(there) if spec.masks == "files" else None
    there = there if masked is None else masked.files
    found = captions.find(folder, there, spec.caption_column)
    no_pictures = there.unreadable.keys() | (masked.masks if masked is not None else frozenset[str]())  # though metadata may name them
    pictures = sorted({*there.pictures, *found.by_picture, *found.null_at} - no_pictures)
    if not pictures and not there.unreadable and not there.unnamable:
        raise _empty(spec, there, field)
    trigger = spec.trigger_phrase.strip()
    without = {path for path in pictures if not (found.by_picture[path] or trigger if path in found.by_picture else path in found.spoiled)}
    trained = [path for path in pictures if path not in without or spec.on_missing_caption != "skip"]
    usable, unreadable = _inspect_all(folder, {path: found.by_picture.get(path, "") for path in trained}, there.sizes)
    unreadable += _corrupt(there.unreadable)
    if spec.masks != "none":
        usable, bad = _mask_all(
            folder, usable, {picture.path: picture.path for picture in usable} if masked is None else masked.by_picture, there.sizes
        )
        unreadable += bad
    problems = [
        *_problems_of_metadata(found, there),
        *_problems_of_captions(spec, field, pictures, without, found, there),
        *_problems_of_pictures(spec, len(usable), unreadable),
        *_problems_of_masks(spec, usable, masked),
    ]
    if problems:
        raise RunFailed("\n".join(f"{field}.uri: {message}" for _, message in problems), reason=problems[0][0])
    return DataSet(
        uri=spec.uri,
        pictures=tuple(usable),
        corrupt=tuple(sorted(unreadable + _corrupt(there.unnamable), key=lambda each: each.path)),
        uncaptioned=Some(sorted(without)),
        passed_over=there.passed_over,
    )


def _corrupt(pictures: Mapping[str, str]) -> list[CorruptPicture]:
    return [CorruptPicture(path=path, why=why) for path, why in pictures.items()]


def _empty(spec: DatasetSpec, there: Files, field: str) -> RunFailed:
    return RunFailed(
        f"{field}.uri: {spec.uri} holds no pictures ({', '.join(FORMATS)}) among its {len(there.sizes)} files{there.told_passed_over()}",
        reason="DATASET_EMPTY",
    )


# Each problem is a reason and a message. All are told at once: who mends a data set does not want to hear of them one by one.


def _problems_of_metadata(found: Captions, there: Files) -> Iterator[tuple[str, str]]:
    if found.problems:
        yield "METADATA_INVALID", found.problems.told("; ")
    if found.absent:
        where = "names are relative to the metadata's folder"
        yield "METADATA_INVALID", f"the metadata names files that are not there: {found.absent} ({where}){there.told_passed_over()}"


def _problems_of_captions(
    spec: DatasetSpec, field: str, pictures: Sequence[str], without: Set[str], found: Captions, there: Files
) -> Iterator[tuple[str, str]]:
    has_none = len(without) == len(pictures) and bool(pictures)
    if spec.on_missing_caption == "trigger" or (has_none and spec.trigger_phrase.strip()):
        return
    if has_none and not found.problems:  # which may well be why
        said = f"{field}.{_SAID_OF_ALL.get(field, 'trigger_phrase')}"
        how = f"put them into metadata.jsonl or metadata.csv (file_name, {spec.caption_column}) or a .txt file beside each picture"
        yield (
            "CAPTIONS_MISSING",
            f"none of the {len(pictures)} pictures in {spec.uri} has a caption; {how}, or set {said}{there.told_passed_over()}",
        )
    elif without and not has_none and spec.on_missing_caption == "fail":
        named = Some(f"{path} ({found.null_at[path]})" if path in found.null_at else path for path in sorted(without))
        yield "CAPTIONS_MISSING", f"{len(without)} of {len(pictures)} pictures have no caption: {named}"


def _problems_of_pictures(spec: DatasetSpec, num_usable: int, unreadable: Sequence[CorruptPicture]) -> Iterator[tuple[str, str]]:
    total = num_usable + len(unreadable)
    named = Some(f"{each.path} {each.why}" for each in unreadable)
    message = f"{len(unreadable)} of {total} pictures cannot be read: {named}"
    if unreadable and (spec.on_corrupt == "fail" or not num_usable):
        yield "CORRUPT_PICTURES", message
    elif len(unreadable) > spec.max_corrupt_fraction * total:
        yield "CORRUPT_PICTURES", f"{message}; max_corrupt_fraction allows {spec.max_corrupt_fraction:.0%}"


def _problems_of_masks(spec: DatasetSpec, usable: Sequence[Picture], masked: Apart | None) -> Iterator[tuple[str, str]]:
    if masked is not None and masked.problems:
        yield "MASKS_MISSING", f"more than one mask is there of {masked.problems.told('; ')}; leave one of each"
    if masked is not None and (without := Some(each.path for each in usable if each.path not in masked.by_picture)):
        how = f"put it beside the picture, as NAME{masks.ENDINGS[0]}.png or NAME{masks.ENDINGS[1]}.png, or into {masks.FOLDER}/ as NAME.png"
        yield "MASKS_MISSING", f"{without.count} of {len(usable)} pictures have no mask: {without}; {how}"
    if spec.masks == "alpha" and usable and not any(each.mask for each in usable):
        yield "MASKS_MISSING", f'dataset.masks is "alpha", and none of the {len(usable)} pictures is transparent anywhere'


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


def _inspect_all(folder: Folder, captions: Mapping[str, str], sizes: Mapping[str, int]) -> tuple[list[Picture], list[CorruptPicture]]:
    """The pictures that can be used, in the order of `captions`, and those that cannot."""
    found: list[Picture | CorruptPicture] = []
    readable: dict[str, int] = {}
    for path in captions:
        try:
            check_bytes(sizes[path])
            readable[path] = sizes[path]
        except UnreadablePicture as error:
            found.append(CorruptPicture(path=path, why=str(error)))
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
        for contents in read_in_pieces(folder, readable):
            found += pool.map(inspect, contents, contents.values(), [captions[path] for path in contents])
    return [each for each in found if isinstance(each, Picture)], [each for each in found if isinstance(each, CorruptPicture)]


def inspect(path: str, content: bytes, caption: str) -> Picture | CorruptPicture:
    """Does to a picture what a worker will, at the smallest size."""
    try:
        found = unpack(content, at_least=(1, 1), fit=lambda picture: picture.resize((1, 1), Image.Resampling.BOX))
    except UnreadablePicture as error:
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


def _mask_all(
    folder: Folder, pictures: Sequence[Picture], paths: Mapping[str, str], sizes: Mapping[str, int]
) -> tuple[list[Picture], list[CorruptPicture]]:
    """The pictures with their masks, which lie at `paths`; those without a path as they are, and those whose mask is of no use."""
    found = {picture.path: picture for picture in pictures if picture.path not in paths}
    with_mask = {picture.path: picture for picture in pictures if picture.path in paths}
    whose: dict[str, list[Picture]] = {}
    for picture in with_mask.values():
        whose.setdefault(paths[picture.path], []).append(picture)
    corrupt: list[CorruptPicture] = []
    for contents in read_in_pieces(folder, {path: sizes[path] for path in whose}):
        for path, content in contents.items():
            for picture in whose[path]:
                try:
                    found[picture.path] = _masked(picture, path, content)
                except UnreadablePicture as error:
                    corrupt.append(CorruptPicture(path=picture.path, why=f"cannot be masked: {path} {error}"))
    return [found[picture.path] for picture in pictures if picture.path in found], corrupt


def _masked(picture: Picture, path: str, content: bytes) -> Picture:
    """With its mask; an alpha channel that is opaque everywhere is none. Raises Unreadable."""
    is_alpha = path == picture.path
    decoded = masks.of_alpha(content) if is_alpha else masks.of_file(content)
    if (decoded.width, decoded.height) != (picture.width, picture.height):
        size, other = f"{decoded.width} x {decoded.height}", f"{picture.width} x {picture.height}"
        raise UnreadablePicture(f"has {size} pixels, and the picture {other}; a mask is as large as its picture")
    if is_alpha and decoded.picture.getextrema() == (255, 255):
        return picture
    box = masks.box_of(decoded.picture)
    return replace(picture, mask=Mask(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), box=box))
