"""Captions are found however they are written down, and what is wrong with them is named, all at once and within bounds."""

import json
import time
import unicodedata
from pathlib import Path

import pytest

from lorafleet.errors import RunFailed
from lorafleet.spec import DatasetSpec
from tests.trainer.pictures import plain
from trainer.data import captions, readers
from trainer.data.files import shown

PICTURE = plain()


def folder(path: Path, files: dict[str, bytes | str], **fields: object) -> DatasetSpec:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return DatasetSpec.model_validate({"uri": f"file://{path}", **fields})


def rows(*each: object) -> str:
    return "\n".join(map(json.dumps, each)) + "\n"


def row(name: str, text: object = "words") -> dict[str, object]:
    return {"file_name": name, "text": text}


def found(path: Path, files: dict[str, bytes | str], **fields: object) -> dict[str, str]:
    return {each.path: each.caption for each in readers.read(folder(path, files, **fields)).pictures}


def refusal(path: Path, files: dict[str, bytes | str], **fields: object) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        readers.read(folder(path, files, **fields))
    assert not caught.value.retryable
    caught.value.message.encode()  # whatever the files hold, the message can be sent
    return caught.value


UMLAUT = unicodedata.normalize("NFC", "bär.png")

FOUND: dict[str, tuple[str, dict[str, bytes | str]]] = {
    "backslashes": ("img/a.png", {"metadata.jsonl": rows(row("img\\a.png"))}),
    "a dot before": ("img/a.png", {"metadata.csv": "file_name,text\n./img/a.png,words\n"}),
    "two slashes": ("img/a.png", {"metadata.jsonl": rows(row("img//a.png"))}),
    "a blank after": ("a.png", {"metadata.csv": "file_name,text\na.png ,words\n"}),
    "relative to a sub-folder": ("train/a.png", {"train/metadata.jsonl": rows(row("a.png"))}),
    "in a sub-folder, relative to the data set": ("train/a.png", {"train/metadata.csv": "file_name,text\ntrain/a.png,words\n"}),
    "decomposed in the metadata": (UMLAUT, {"metadata.jsonl": rows(row(unicodedata.normalize("NFD", UMLAUT)))}),
    "decomposed on disk": (unicodedata.normalize("NFD", UMLAUT), {"metadata.jsonl": rows(row(UMLAUT))}),
    "decomposed beside": (UMLAUT, {unicodedata.normalize("NFD", "bär.txt"): "words"}),
    "case of the name": ("A.PNG", {"metadata.jsonl": rows(row("a.png"))}),
    "case of the metadata": ("a.png", {"Metadata.JSONL": rows(row("a.png"))}),
    "case of the suffix": ("a.png", {"a.TXT": "words"}),
    "another suffix": ("a.png", {"a.caption": "words"}),
    "both suffixes": ("a.png", {"a.png.txt": "words"}),
    "a picture without a suffix": ("a", {"metadata.jsonl": rows(row("a"))}),
    "semicolons": ("a.png", {"metadata.csv": "file_name;text\na.png;words\n"}),
    "tabs, a byte order mark and CRLF": ("a.png", {"metadata.csv": b"\xef\xbb\xbffile_name\ttext\r\na.png\twords\r\n"}),
    "beside, where the metadata says nothing": ("a.png", {"b.png": PICTURE, "metadata.jsonl": rows(row("b.png")), "a.txt": "words"}),
    "null, and beside": ("a.png", {"metadata.jsonl": rows(row("a.png", None)), "a.txt": "words"}),
    "with a row for what a system left": ("a.png", {"._a.png": b"x", "metadata.jsonl": rows(row("a.png"), row("._a.png", "x"))}),
}


@pytest.mark.parametrize("how", FOUND)
def test_a_caption_that_is_there_is_found(tmp_path: Path, how: str):
    path, files = FOUND[how]
    assert found(tmp_path, {path: PICTURE, **files})[path] == "words"


def test_two_pictures_of_one_stem_share_its_caption_and_may_have_their_own(tmp_path: Path):
    pictures: dict[str, bytes | str] = {"a.png": PICTURE, "a.jpg": plain(file_format="JPEG")}
    assert found(tmp_path / "1", {**pictures, "a.txt": "both"}) == {"a.png": "both", "a.jpg": "both"}
    assert found(tmp_path / "2", {**pictures, "a.txt": "both", "a.jpg.txt": "own"}) == {"a.png": "both", "a.jpg": "own"}


def test_a_name_that_may_mean_two_files_means_none(tmp_path: Path):
    files: dict[str, bytes | str] = {"A.png": PICTURE, "a.png": PICTURE, "metadata.jsonl": rows(row("A.png"), row("a.png"), row("a.PNG"))}
    assert "not there: a.PNG" in refusal(tmp_path, files).message


WRONG: dict[str, tuple[dict[str, bytes | str], str]] = {
    "a list": ({"metadata.jsonl": rows(row("a.png", ["x", "y"]))}, "metadata.jsonl line 1: text is a list; a caption is one text"),
    "a number": ({"metadata.jsonl": rows(row("a.png", 5))}, "text is a number"),
    "an object": ({"metadata.jsonl": rows(row("a.png", {}))}, "text is an object"),
    "no name": ({"metadata.jsonl": rows({"file_name": None, "text": "x"})}, "file_name is null"),
    "no object": ({"metadata.jsonl": "[1]"}, "is not a JSON object but a list"),
    "half a pair": ({"metadata.jsonl": '{"file_name": "a.png", "text": "cat \\ud83d"}'}, "half a character, \\ud83d"),
    "half a pair in a name": ({"metadata.jsonl": '{"file_name": "\\ud83d.png", "text": "cat"}'}, "not there: \\ud83d.png"),
    "half a pair in a column": ({"metadata.jsonl": '{"file_name": "a.png", "\\ud83d": "cat"}'}, "it has file_name, \\ud83d"),
    "nested": ({"metadata.jsonl": '{"file_name": "a.png", "text": "x", "y": ' + "[" * 10**5 + "]" * 10**5 + "}"}, "nested deeper"),
    "a long number": ({"metadata.jsonl": '{"file_name": "a.png", "text": "x", "y": ' + "9" * 5000 + "}"}, "line 1: is not JSON"),
    "an open quote": ({"metadata.csv": 'file_name,text\na.png,"words\nb.png,x\n'}, "metadata.csv line 2: a quote is opened here"),
    "an endless quote": ({"metadata.csv": 'file_name,text\na.png,"' + "word\n" * 40_000}, "field larger than field limit (131072)"),
    "UTF-16": ({"a.txt": "words".encode("utf-16")}, "a.txt is not UTF-8: it begins as UTF-16"),
    "UTF-16 without a mark": ({"a.txt": "words".encode("utf-16-le")}, "a.txt is not plain text: it has NUL characters"),
    "Windows' code page": ({"metadata.csv": "file_name,text\na.png,b\xe4r\n".encode("cp1252")}, "byte 0xe4 in line 2; save it as UTF-8"),
    "two captions": ({"metadata.jsonl": rows(row("a.png"), row("./a.png", "others"))}, "line 2: gives a.png another caption than"),
    "a long caption": ({"a.txt": "x" * 20_001}, "a.txt: a caption of 20,001 characters"),
    "a large text": ({"a.txt": "x" * 300_000}, "a.txt has 300,000 bytes, and at most 262,144 are read"),
    "a long line": ({"metadata.jsonl": json.dumps(row("a.png", "x" * 2**20))}, "line 1: has 1,048,"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_caption_file_is_said_with_its_place(tmp_path: Path, what: str):
    files, message = WRONG[what]
    error = refusal(tmp_path, {"a.png": PICTURE, **files})
    assert error.reason == "METADATA_INVALID"
    assert message in error.message


def test_all_that_is_wrong_is_named_at_once_and_no_endless_list(tmp_path: Path):
    bad = [row(f"{number}.png", number) for number in range(30)]
    files: dict[str, bytes | str] = {f"{number}.png": PICTURE for number in range(30)}
    more: dict[str, bytes | str] = {"half.jpg": plain((64, 64), file_format="JPEG")[:-200], "half.txt": "x", "none.png": PICTURE}
    metadata = {"z.png": PICTURE, "z.txt": b"\xff", "metadata.jsonl": rows(*bad, row("gone.png"))}
    error = refusal(tmp_path, {**files, **more, **metadata}, on_corrupt="fail")
    assert "line 1: text is a number" in error.message
    assert "line 10: text is a number" in error.message
    assert "and 21 more" in error.message
    assert "not there: gone.png" in error.message
    assert "1 of 33 pictures have no caption: none.png" in error.message
    assert "half.jpg is broken" in error.message
    assert len(error.message) < 5000


def test_a_metadata_file_is_too_large_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(captions, "MAX_METADATA_BYTES", 100)
    files: dict[str, bytes | str] = {"a.png": PICTURE, "metadata.jsonl": rows(row("a.png", "x" * 200))}
    assert "metadata.jsonl has 235 bytes, and at most 100 are read" in refusal(tmp_path / "1", files).message
    many: dict[str, bytes | str] = {
        f"{number}.{suffix}": content for number in range(3) for suffix, content in (("png", PICTURE), ("txt", "x" * 40))
    }
    assert "the captions beside the pictures have 120 bytes" in refusal(tmp_path / "2", many).message


SLOW = {
    "empty lines": "\n" * 2**22,
    "lines that are wrong": "1\n" * 300_000,
    "brackets": '{"y": "' + "[" * 2**19 + '", "z": [' + "[]," * 2**17 + "0]}",
    "quotes that are escaped and not closed": "[" * 40 + '"' + '\\"' * 2**18,
}


@pytest.mark.parametrize("what", SLOW)
def test_no_metadata_file_takes_long(tmp_path: Path, what: str):
    began = time.process_time()
    assert refusal(tmp_path, {"a.png": PICTURE, "metadata.jsonl": SLOW[what]}).reason in {"METADATA_INVALID", "CAPTIONS_MISSING"}
    assert time.process_time() - began < 10


# Pictures without a caption

TWO: dict[str, bytes | str] = {"a.png": PICTURE, "b.png": PICTURE, "a.txt": "words"}


def test_without_a_caption_a_data_set_fails_by_default_also_with_a_trigger_phrase(tmp_path: Path):
    assert "1 of 2 pictures have no caption: b.png" in refusal(tmp_path, TWO, trigger_phrase="sks").message


def test_pictures_without_a_caption_can_be_skipped(tmp_path: Path):
    data_set = readers.read(folder(tmp_path, TWO, on_missing_caption="skip"))
    assert [each.path for each in data_set.pictures] == ["a.png"]
    assert str(data_set.uncaptioned) == "b.png"
    assert refusal(tmp_path / "none", {"a.png": PICTURE}, on_missing_caption="skip").reason == "CAPTIONS_MISSING"


def test_the_trigger_phrase_can_be_the_caption(tmp_path: Path):
    assert found(tmp_path, TWO, on_missing_caption="trigger", trigger_phrase="sks") == {"a.png": "words", "b.png": ""}


def test_the_trigger_phrase_alone_is_a_caption_where_no_picture_has_one(tmp_path: Path):
    assert found(tmp_path, {"a.png": PICTURE, "b.png": PICTURE}, trigger_phrase="sks") == {"a.png": "", "b.png": ""}


def test_an_empty_caption_is_one_beside_a_trigger_phrase_and_none_without(tmp_path: Path):
    files = {**TWO, "b.txt": ""}
    assert found(tmp_path, files, trigger_phrase="sks") == {"a.png": "words", "b.png": ""}
    assert "no caption: b.png" in refusal(tmp_path, files).message


def test_a_null_caption_is_said_to_be_null(tmp_path: Path):
    files: dict[str, bytes | str] = {"a.png": PICTURE, "b.png": PICTURE, "metadata.jsonl": rows(row("a.png"), row("b.png", None))}
    assert "no caption: b.png (metadata.jsonl line 2: text is null)" in refusal(tmp_path, files).message


def test_what_is_shown_of_a_users_text_is_one_printable_line():
    assert shown("a\nb\x1b[2J\u202e\ud83d" + "x" * 500).startswith("a\\x0ab\\x1b[2J\\x202e\\ud83d")
    assert len(shown("x" * 500)) == 201
