"""Masks: what of a picture counts, white or opaque, and what does not. Which file is whose, and what is wrong with one. Reads no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from PIL import Image

from trainer.data import decode
from trainer.data.decode import Decoded, Fit, UnreadablePicture
from trainer.data.files import Files, Some

FOLDER = "masks"  # with masks named as their pictures are, as kohya's conditioning_data_dir holds them
ENDINGS = (".mask", "-masklabel")  # of a mask's name beside its picture; the second is OneTrainer's
LEAST_WHITE = 8  # of 255; what has nothing brighter, such as one of zeros and ones, was not meant so
_OF_NO_PICTURE = "masks without their picture"

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A picture's mask, in a file of its own or as its alpha channel."""

    path: str
    size_bytes: int
    sha256: str  # of the file's bytes
    box: Box  # around all that counts, in the picture's own pixels, upright


@dataclass(frozen=True, kw_only=True)
class Apart:
    """A data set's files without the masks, and the masks by their pictures."""

    files: Files
    by_picture: Mapping[str, str]
    masks: frozenset[str]  # all of them
    problems: Some  # pictures with more than one


def apart(there: Files) -> Apart:
    """Tells masks from pictures by their names."""
    whose = {path: owner for path in there.pictures if (owner := _owner(path)) is not None}
    pictures = [path for path in there.pictures if path not in whose]
    masks: dict[str, list[str]] = {}
    for path, owner in whose.items():
        masks.setdefault(owner, []).append(path)
    by_picture, problems = dict[str, str](), Some()
    for path in pictures:
        match masks.get(_stem(path), []):
            case [mask]:
                by_picture[path] = mask
            case [first, second, *_]:
                problems.add(f"{path}: {first} and {second}")
            case _:
                pass
    stray = Some(sorted(path for path, owner in whose.items() if owner not in {_stem(path) for path in pictures}))
    passed_over = {**there.passed_over, **({_OF_NO_PICTURE: stray} if stray else {})}
    pictures_alone = replace(there, pictures=tuple(pictures), passed_over=passed_over)
    return Apart(files=pictures_alone, by_picture=by_picture, masks=frozenset(whose), problems=problems)


def named_as_masks(pictures: Sequence[str]) -> list[str]:
    """Pictures that look like the masks of others, by their names."""
    stems = {_stem(path) for path in pictures}
    return [path for path in pictures if _owner(path) in stems]


def _owner(path: str) -> str | None:
    """The picture that a mask's name says it is of, without its ending; None: it is no mask."""
    stem, folders = _stem(path), path.split("/")[:-1]
    for ending in ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)]
    if FOLDER not in folders:
        return None
    last = len(folders) - 1 - folders[::-1].index(FOLDER)
    return "/".join([*folders[:last], *folders[last + 1 :], stem.rpartition("/")[2]])


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


# Pixels


def of_file(content: bytes, fit: Fit | None = None) -> Decoded:
    """Grey, in eight bits; what is transparent is black. Raises Unreadable."""
    return decode.unpack(content, fit=fit, take=_grey)


def of_alpha(content: bytes, fit: Fit | None = None) -> Decoded:
    """A picture's alpha channel; one that has none is opaque. Raises Unreadable."""
    return decode.unpack(content, fit=fit, take=_alpha)


def _grey(picture: Image.Image) -> Image.Image:
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    grey = picture.convert(picture.mode.removesuffix("A")).convert("L")
    if alpha is None:
        return grey
    ground = Image.new("L", grey.size)
    ground.paste(grey, mask=alpha)
    return ground


def _alpha(picture: Image.Image) -> Image.Image:
    return picture.getchannel("A") if picture.mode in ("LA", "RGBA") else Image.new("L", picture.size, 255)


def box_of(mask: Image.Image) -> Box:
    """Around what counts. Raises Unreadable where that is nothing."""
    brightest, box = max(value for value, count in enumerate(mask.histogram()) if count), mask.getbbox()
    if box is None:
        raise UnreadablePicture("is empty: nothing of it is white or opaque, so nothing would be learned")
    if brightest < LEAST_WHITE:
        raise UnreadablePicture(f"is all but empty: its brightest is {brightest} of 255; what is to count is white, 255")
    return box
