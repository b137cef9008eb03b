"""Reading a data set: every layout, and every way it can be broken, named."""

import io
from pathlib import Path

import pytest
from PIL import Image

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from trainer.data import readers


def picture(size: tuple[int, int] = (8, 6), mode: str = "RGB", file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 0).save(buffer, file_format)
    return buffer.getvalue()


def folder(path: Path, files: dict[str, bytes | str]) -> DatasetSpec:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return DatasetSpec(uri=f"file://{path}", max_corrupt_fraction=0.5)


def refusal(spec: DatasetSpec) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        readers.read(spec)
    return caught.value


LAYOUTS = {
    "jsonl": {"metadata.jsonl": '{"file_name": "a.png", "text": "an a"}\n\n{"file_name": "sub/b.jpg", "text": "a b"}\n'},
    "csv": {"metadata.csv": "file_name,text\na.png,an a\nsub/b.jpg,a b\n"},
    "txt": {"a.txt": "an a\n", "sub/b.txt": "a b", "notes.txt": "no picture of mine"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data_set(tmp_path: Path, layout: str):
    spec = folder(tmp_path, {"a.png": picture(), "sub/b.jpg": picture(file_format="JPEG"), **LAYOUTS[layout]})
    data_set = readers.read(spec)
    assert [(each.path, each.caption, each.width, each.height) for each in data_set.pictures] == [
        ("a.png", "an a", 8, 6),
        ("sub/b.jpg", "a b", 8, 6),
    ]


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path):
    files = {"a.png": picture(), "metadata.jsonl": '{"file_name": "a.png", "text": "an a"}'}
    one, two = readers.read(folder(tmp_path / "1", files)), readers.read(folder(tmp_path / "2", files))
    other = readers.read(folder(tmp_path / "3", files | {"metadata.jsonl": '{"file_name": "a.png", "text": "another"}'}))
    assert one.digest == two.digest != other.digest


def test_transparent_pictures_are_put_on_white():
    decoded = readers.decode(picture(mode="RGBA"))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((0, 0)) == (255, 255, 255)


BROKEN = [
    ({}, "DATASET_EMPTY", "holds no pictures"),
    ({"readme.md": "x"}, "DATASET_EMPTY", "among its 1 files"),
    ({"a.png": picture()}, "CAPTIONS_MISSING", "none of the 1 pictures"),
    ({"a.png": picture(), "b.png": picture(), "a.txt": "an a"}, "CAPTIONS_MISSING", "1 of 2 pictures have no caption: b.png"),
    ({"a.png": picture(), "metadata.jsonl": "{nonsense"}, "METADATA_INVALID", "line 1: is not JSON"),
    (
        {"a.png": picture(), "metadata.jsonl": '{"file_name": "a.png", "caption": "x"}'},
        "METADATA_INVALID",
        "no text; it has file_name, caption",
    ),
    ({"a.png": picture(), "metadata.jsonl": b"\xff\xfe"}, "METADATA_INVALID", "metadata.jsonl is not UTF-8"),
    ({"a.png": picture(), "a.txt": b"\xff"}, "METADATA_INVALID", "a.txt is not UTF-8"),
    ({"a.png": picture(), "metadata.csv": "file_name,text\na.png,x\nb.png,y\n"}, "METADATA_INVALID", "files that are not there: b.png"),
]


@pytest.mark.parametrize(("files", "reason", "message"), BROKEN)
def test_a_broken_data_set_is_refused_by_name(tmp_path: Path, files: dict[str, bytes | str], reason: str, message: str):
    error = refusal(folder(tmp_path, files))
    assert error.reason == reason
    assert message in error.message


def captioned(pictures: dict[str, bytes]) -> dict[str, bytes | str]:
    return {**pictures, **{f"{Path(name).stem}.txt": "words" for name in pictures}}


def test_a_corrupt_picture_is_named_and_skipped_up_to_the_limit(tmp_path: Path):
    half = picture((64, 64), file_format="JPEG")[:-200]
    spec = folder(tmp_path, captioned({"a.png": picture(), "b.jpg": half, "c.png": picture()}))
    data_set = readers.read(spec)
    assert [each.path for each in data_set.pictures] == ["a.png", "c.png"]
    assert [each.path for each in data_set.corrupt] == ["b.jpg"]

    above = refusal(spec.model_copy(update={"max_corrupt_fraction": 0.3}))
    assert above.reason == "CORRUPT_PICTURES"
    assert "1 of 3" in above.message
    assert "b.jpg" in above.message
    assert refusal(spec.model_copy(update={"on_corrupt": "fail"})).reason == "CORRUPT_PICTURES"


def test_no_usable_picture_at_all_fails_under_every_policy(tmp_path: Path):
    spec = folder(tmp_path, captioned({"a.png": b"no picture"})).model_copy(update={"max_corrupt_fraction": 1.0})
    assert refusal(spec).reason == "CORRUPT_PICTURES"
