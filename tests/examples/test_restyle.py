"""Restyled folders keep their captions, are the same every time, and look like no other style."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import restyle

NOTO = Path(restyle.__file__).parent / "data" / "noto-emoji"
PICTURE = Image.open(NOTO / "1f344.png")


@pytest.mark.parametrize("name", restyle.STYLES)
def test_style_keeps_size_and_is_deterministic(name: str):
    first, second = restyle.STYLES[name](PICTURE), restyle.STYLES[name](PICTURE)
    assert (first.size, first.mode) == (PICTURE.size, "RGB")
    assert first.tobytes() == second.tobytes()


def test_styles_differ_from_each_other_and_from_the_original():
    drawn = {name: np.asarray(style(PICTURE), np.float32) for name, style in restyle.STYLES.items()}
    drawn["original"] = np.asarray(PICTURE, np.float32)
    close = [pair for pair in combinations(drawn, 2) if np.abs(drawn[pair[0]] - drawn[pair[1]]).mean() < 4]
    assert close == []


def test_captions_are_kept(tmp_path: Path):
    count = restyle.restyle("ink", NOTO, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert rows == restyle.read_metadata(NOTO)
    assert len(list(tmp_path.glob("*.png"))) == count == 256


def test_slices_of_one_source_share_no_picture(tmp_path: Path):
    counts = [restyle.restyle("sepia", NOTO, tmp_path / str(offset), which=slice(offset, None, 16)) for offset in range(2)]
    first, second = ({row["file_name"] for row in restyle.read_metadata(tmp_path / str(offset))} for offset in range(2))
    assert counts == [16, 16]
    assert first.isdisjoint(second)


def test_a_slice_that_leaves_nothing_is_refused(tmp_path: Path):
    with pytest.raises(restyle.RestyleError, match="no picture is left"):
        restyle.restyle("sepia", NOTO, tmp_path, which=slice(1000, None))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "names no pictures"),
        ("{", "metadata.jsonl:1: not JSON"),
        ('{"text": "a"}', 'metadata.jsonl:1: no "file_name"'),
        ('{"file_name": "../a.png"}', "metadata.jsonl:1: ../a.png is not a picture in"),
        ('{"file_name": "b.png"}', "metadata.jsonl:1: b.png is not a picture in"),
        ('{"file_name": "a.png"}\n{"file_name": "a.jpg"}', "metadata.jsonl:2: a second picture"),
    ],
)
def test_bad_metadata_is_told_by_line(tmp_path: Path, lines: str, message: str):
    PICTURE.save(tmp_path / "a.png")
    PICTURE.save(tmp_path / "a.jpg")
    (tmp_path / "metadata.jsonl").write_text(lines)
    with pytest.raises(restyle.RestyleError, match=message):
        restyle.restyle("ink", tmp_path, tmp_path / "out")


def test_originals_are_never_overwritten():
    with pytest.raises(restyle.RestyleError, match="originals would be lost"):
        restyle.restyle("ink", NOTO, NOTO)
