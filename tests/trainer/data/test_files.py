"""A data set's folder: what is no picture of the user's is passed over and counted, and nothing outside the folder is read."""

import os
from collections.abc import Iterable
from pathlib import Path

import boto3
import pytest

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from tests.trainer.pictures import plain
from trainer import listing
from trainer.data import readers
from trainer.data.readers import DataSet
from trainer.listing import can_hold
from trainer.storage import Folder

PICTURE = plain()
GOOD: dict[str, bytes] = {"good.png": PICTURE, "good.txt": b"words"}


def make(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def read(path: Path, **fields: object) -> DataSet:
    return readers.read(DatasetSpec.model_validate({"uri": f"file://{path}", **fields}))


def paths(data_set: DataSet) -> list[str]:
    return [each.path for each in data_set.pictures]


LEFT_BEHIND = [
    "._good.png",
    "._good.txt",
    "sub/._metadata.jsonl",
    "__MACOSX/good.png",
    ".ipynb_checkpoints/good-checkpoint.png",
    "@eaDir/good.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old.png",
    ".thumbnails/large/0.png",
    "Thumbs.db",
    ".DS_Store",
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_systems_leave_behind_is_passed_over_and_counted(tmp_path: Path, name: str):
    data_set = read(make(tmp_path, {**GOOD, name: b"\0\5\x16\7\0\2\xb0" + PICTURE}))
    assert paths(data_set) == ["good.png"]
    assert {why: str(some) for why, some in data_set.passed_over.items()} == {"hidden files, and what systems and tools leave behind": name}


def test_a_folder_called_icon_is_one(tmp_path: Path):
    assert paths(read(make(tmp_path, {"icon/a.png": PICTURE, "icon/a.txt": b"words"}))) == ["icon/a.png"]


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\x1b[2Jb.png", b"caf\xe9.png", b"a\x7f.png"])
def test_a_picture_whose_name_no_client_can_hold_is_named_and_ends_nothing(tmp_path: Path, name: bytes):
    make(tmp_path, GOOD)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(PICTURE)
    data_set = read(tmp_path, on_corrupt="fail")
    assert paths(data_set) == ["good.png"]
    assert "rename it" in data_set.corrupt[0].why
    assert data_set.corrupt[0].path.isprintable()


def test_what_is_no_plain_file_is_passed_over_and_never_opened(tmp_path: Path):
    make(tmp_path, GOOD)
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "metadata.jsonl")
    data_set = read(tmp_path)
    assert paths(data_set) == ["good.png"]
    assert data_set.passed_over[listing.NO_PLAIN_FILE].count == 2


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    outside = make(tmp_path / "outside", {"secret": b"root:x:0", "a.png": PICTURE, "a.txt": b"words"})
    data = make(tmp_path / "data", GOOD)
    for name, target in (("metadata.csv", "secret"), ("b.txt", "secret"), ("b.png", "a.png"), ("sub", "")):
        (data / name).symlink_to(outside / target)
    data_set = read(data)
    assert paths(data_set) == ["good.png"]
    assert data_set.passed_over["links that lead out of the folder"].count == 6
    (data / "good.txt").unlink()
    (data / "good.txt").symlink_to(outside / "secret")
    with pytest.raises(RunFailed) as caught:
        read(data)
    assert "links that lead out of the folder" in caught.value.message
    assert "root:" not in caught.value.message


def test_links_within_the_folder_are_followed_and_those_to_nowhere_passed_over(tmp_path: Path):
    make(tmp_path, {"store/a": PICTURE, "store/b": b"words"})
    for name, target in (("a.png", "store/a"), ("a.txt", "store/b"), ("loop", "."), ("gone.txt", "nowhere")):
        (tmp_path / name).symlink_to(target)
    data_set = read(tmp_path)
    assert paths(data_set) == ["a.png"]
    assert data_set.passed_over[listing.A_LINK_TO_NOTHING].count == 2


def test_a_data_set_that_is_itself_a_link_is_read(tmp_path: Path):
    make(tmp_path / "v3", GOOD)
    (tmp_path / "current").symlink_to("v3")
    assert paths(read(tmp_path / "current")) == ["good.png"]


def test_a_photograph_in_a_format_that_is_not_read_counts_as_unreadable(tmp_path: Path):
    make(tmp_path, {**GOOD, "b.HEIC": b"x"})
    with pytest.raises(RunFailed, match=r"1 of 2 pictures cannot be read: b.HEIC is HEIC, which is not read; convert it"):
        read(tmp_path)
    data_set = read(tmp_path, max_corrupt_fraction=0.5)
    assert [each.path for each in data_set.corrupt] == ["b.HEIC"]


def test_sources_beside_the_pictures_are_counted_and_fail_nothing(tmp_path: Path):
    data_set = read(make(tmp_path, {**GOOD, "good.heic": b"x", "good.psd": b"x", "good.cr2": b"x"}), on_corrupt="fail")
    assert paths(data_set) == ["good.png"]
    assert sorted(str(some) for some in data_set.passed_over.values()) == ["good.cr2", "good.heic", "good.psd"]


def test_a_picture_of_too_many_bytes_is_left_out_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path, GOOD | {"huge.png": b"", "huge.txt": b"words"})
    os.truncate(tmp_path / "huge.png", 101 * 2**20)
    read_all, asked = Folder.read_all, set[str]()

    def asks(folder: Folder, names: Iterable[str]) -> dict[str, bytes]:
        asked.update(names)
        return read_all(folder, names)

    monkeypatch.setattr(Folder, "read_all", asks)
    data_set = read(tmp_path, max_corrupt_fraction=0.5)
    assert paths(data_set) == ["good.png"]
    assert "has 101 MiB" in data_set.corrupt[0].why
    assert "huge.png" not in asked


def test_no_more_is_read_at_once_than_may_lie_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readers, "READ_AT_ONCE_BYTES", 100)
    folder = Folder(make(tmp_path, {f"{number}": b"x" * 60 for number in range(3)} | {"large": b"x" * 500}).as_uri())
    pieces = [sorted(piece) for piece in readers.read_in_pieces(folder, {"0": 60, "1": 30, "large": 500, "2": 60})]
    assert pieces == [["0", "1"], ["large"], ["2"]]


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listing, "MAX_LISTED", 2)
    with pytest.raises(RunFailed, match="holds more than 2 files") as caught:
        Folder(make(tmp_path, {"a": b"", "b": b"", "c": b""}).as_uri()).list()
    assert not caught.value.retryable


def test_a_bucket_whose_keys_obstore_cannot_hold_is_listed_all_the_same(s3: dict[str, str]):
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="odd-names")
    for key, body in {"set/a.png": PICTURE, "set/a.txt": b"words", "set/Icon\r": b"", "set/b\n.png": PICTURE, "set/empty/": b""}.items():
        client.put_object(Bucket="odd-names", Key=key, Body=body)
    data_set = readers.read(DatasetSpec(uri="s3://odd-names/set"))
    assert paths(data_set) == ["a.png"]
    assert [each.path for each in data_set.corrupt] == ["b\\x0a.png"]


@pytest.mark.parametrize(("key", "fits"), [("a b/ü#%.png", True), ("a//b", False), ("a/../b", False), ("", False), ("a\udcff", False)])
def test_which_keys_obstore_can_hold(key: str, fits: bool):
    assert can_hold(key) == fits
