"""Masks in files and alpha channels: which is whose, and everything that can be wrong with one, by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from tests.trainer.pictures import plain, saved
from trainer.data import masks, readers
from trainer.data.readers import DataSet, Picture

PICTURE = plain((20, 10))


def half(size: tuple[int, int] = (20, 10), mode: str = "L", colour: Any = 255) -> bytes:
    """White on its right half."""
    picture = Image.new(mode, size)
    picture.paste(colour, (size[0] // 2, 0, *size))
    return saved(picture)


def spec_of(path: Path, files: dict[str, bytes], kind: str = "files", **more: Any) -> DatasetSpec:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
        (path / name).with_suffix(".txt").write_text("a thing")
    return DatasetSpec(uri=f"file://{path}", masks=kind, **more)


def read(path: Path, files: dict[str, bytes], kind: str = "files", **more: Any) -> DataSet:
    return readers.read(spec_of(path, files, kind, **more))


def refusal(path: Path, files: dict[str, bytes], kind: str = "files", **more: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        read(path, files, kind, **more)
    return caught.value


@pytest.mark.parametrize("name", ["sub/a.mask.png", "sub/a-masklabel.png", "sub/masks/a.png", "masks/sub/a.webp", "sub/a.MASK.jpg"])
def test_a_mask_is_found_where_people_put_it(tmp_path: Path, name: str):
    [found] = read(tmp_path, {"sub/a.jpg": PICTURE, name: half()}).pictures
    assert found.mask is not None
    assert (found.path, found.mask.path, found.mask.box) == ("sub/a.jpg", name, (10, 0, 20, 10))


def test_masks_are_pictures_where_none_are_asked_for(tmp_path: Path):
    found = read(tmp_path, {"a.png": PICTURE, "a.mask.png": half()}, "none")
    assert [(each.path, each.mask) for each in found.pictures] == [("a.mask.png", None), ("a.png", None)]


def test_a_mask_that_metadata_names_too_is_no_picture(tmp_path: Path):
    spec = spec_of(tmp_path, {"a.png": PICTURE, "a.mask.png": half()})
    (tmp_path / "metadata.jsonl").write_text("".join(f'{{"file_name": "{name}", "text": "one"}}\n' for name in ("a.png", "a.mask.png")))
    assert [each.path for each in readers.read(spec).pictures] == ["a.png"]


def test_a_mask_without_its_picture_is_told(tmp_path: Path):
    found = read(tmp_path, {"a.png": PICTURE, "a.mask.png": half(), "b.mask.png": half()})
    assert {why: str(some) for why, some in found.passed_over.items()} == {"masks without their picture": "b.mask.png"}


def test_masks_are_part_of_the_data_sets_digest_and_their_places_are_not(tmp_path: Path):
    files = {"a.png": PICTURE, "a.mask.png": half()}
    one, moved = read(tmp_path / "1", files), read(tmp_path / "2", {"a.png": PICTURE, "masks/a.png": half()})
    other, none = read(tmp_path / "3", {**files, "a.mask.png": half(colour=254)}), read(tmp_path / "4", {"a.png": PICTURE}, "none")
    assert one.digest == moved.digest
    assert len({one.digest, other.digest, none.digest}) == 3


BAD = {
    "another size": (half((10, 20)), "has 10 x 20 pixels, and the picture 20 x 10"),
    "black": (plain((20, 10), "L"), "is empty"),
    "zeros and ones": (half(colour=1), "brightest is 1 of 255"),
    "no picture": (b"nothing", "is no picture of a kind"),
    "half a file": (half()[:-20], "is broken"),
    "hidden by its alpha": (plain((20, 10), "LA", colour=(255, 0)), "is empty"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_mask_is_dealt_with_as_a_bad_picture_is_and_named(tmp_path: Path, what: str):
    content, why = BAD[what]
    files = {"a.png": PICTURE, "a.mask.png": content, "b.png": PICTURE, "b.mask.png": half()}
    error = refusal(tmp_path, files, on_corrupt="fail")
    assert error.reason == "CORRUPT_PICTURES"
    assert "a.png cannot be masked: a.mask.png " in str(error)
    assert why in str(error)
    found = read(tmp_path, files, max_corrupt_fraction=0.5)
    assert ([each.path for each in found.pictures], [each.path for each in found.corrupt]) == (["b.png"], ["a.png"])


def test_a_picture_without_a_mask_is_an_error_whatever_is_skipped(tmp_path: Path):
    error = refusal(tmp_path, {"a.png": PICTURE, "a.mask.png": half(), "b.png": PICTURE}, max_corrupt_fraction=1.0)
    assert error.reason == "MASKS_MISSING"
    assert "1 of 2 pictures have no mask: b.png; put it beside the picture, as NAME.mask.png" in str(error)


def test_two_masks_of_one_picture_are_an_error(tmp_path: Path):
    error = refusal(tmp_path, {"a.png": PICTURE, "a.mask.png": half(), "masks/a.png": half()})
    assert error.reason == "MASKS_MISSING"
    assert "a.png: a.mask.png and masks/a.png" in str(error)


def transparent(size: tuple[int, int] = (20, 10)) -> bytes:
    """Opaque on its right half."""
    return half(size, "RGBA", (9, 9, 9, 255))


def test_an_alpha_channel_is_a_mask_and_an_opaque_picture_counts_whole(tmp_path: Path):
    opaque, seen = read(tmp_path, {"a.png": PICTURE, "b.png": transparent()}, "alpha").pictures
    assert opaque.mask is None
    assert seen.mask is not None
    assert (seen.mask.path, seen.mask.box) == ("b.png", (10, 0, 20, 10))


def test_alpha_channels_that_are_nowhere_are_an_error(tmp_path: Path):
    error = refusal(tmp_path, {"a.png": PICTURE}, "alpha")
    assert error.reason == "MASKS_MISSING"
    assert "none of the 1 pictures is transparent anywhere" in str(error)


def test_a_picture_that_is_transparent_everywhere_is_no_use(tmp_path: Path):
    files = {"a.png": plain((20, 10), "RGBA", colour=(9, 9, 9, 0)), "b.png": transparent()}
    assert "a.png cannot be masked: a.png is empty" in str(refusal(tmp_path, files, "alpha", on_corrupt="fail"))


def test_a_mask_is_turned_as_its_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = saved(Image.open(tmp_file(tmp_path, half((10, 20)))).convert("L"), exif=exif)
    [found] = read(tmp_path / "data", {"a.png": PICTURE, "a.mask.png": mask}).pictures
    assert isinstance(found, Picture)
    assert found.mask is not None
    assert found.mask.box == (0, 5, 20, 10)


def tmp_file(path: Path, content: bytes) -> Path:
    (path / "file.png").write_bytes(content)
    return path / "file.png"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_white_is_white_in_every_mode(mode: str):
    white = {"1": 1, "L": 255, "P": 255, "RGB": (255, 255, 255), "RGBA": (255, 255, 255, 255), "I;16": 65535}[mode]
    picture = Image.new(mode, (4, 4), white)
    if mode == "P":
        picture.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    assert np.asarray(masks.of_file(saved(picture)).picture).tolist() == [[255] * 4] * 4
