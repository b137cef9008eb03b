"""Whatever a spec or batch file holds: it is read, or refused in one line that names the file, soon and with exit code 2."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lorafleet import spec_file, yaml_text
from lorafleet.batch import file as batch_file
from lorafleet.cli import app
from lorafleet.errors import InvalidInput

SMALLEST = "base_model: {uri: 'file:///b'}\ndataset: {uri: 'file:///d'"
DEEP = 100_000


def bomb(levels: int) -> str:
    lines = [f"a{level}: &a{level} {{x: *a{level - 1}, y: *a{level - 1}}}" for level in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1, y: 2}", *lines])


def chain(levels: int) -> str:
    return "\n".join(["a0: &a0 [x]", *(f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, levels))])


HOSTILE: dict[str, tuple[str, str]] = {  # what is in the file, what is said
    "a day that there is not": (f"{SMALLEST}, trigger_phrase: 2024-02-30}}\n", "line 2, column 45: '2024-02-30' is no date"),
    "a moment that there is not": (f"{SMALLEST}, trigger_phrase: 2024-02-28 25:61:61}}\n", "is no date"),
    "a date": (f"{SMALLEST}, trigger_phrase: 2024-02-28}}\n", "dataset.trigger_phrase"),
    "hexadecimal nothing": (f"{SMALLEST}}}\nlabels: {{a: 0x_}}\n", "line 3, column 13: '0x_' is no whole number"),
    "binary nothing": (f"{SMALLEST}}}\nlabels: {{a: 0b_}}\n", "is no whole number"),
    "5,000 digits": (f"{SMALLEST}}}\ntraining: {{seed: {'9' * 5000}}}\n", "is no whole number"),
    "5,000 hexadecimal digits": (f"{SMALLEST}}}\ntraining: {{seed: 0x{'f' * 5000}}}\n", "is no whole number"),
    "a number to the base 60": (f"{SMALLEST}}}\ntraining: {{seed: {'1:' * 50_000}1}}\n", "is no whole number"),
    "a huge float": (f"{SMALLEST}}}\ntraining: {{learning_rate: {'9' * 350}.0}}\n", "training.learning_rate"),
    "a number's tag before a word": ("a: !!int ''\n", "is no whole number"),
    "a date's tag before a word": ("a: !!timestamp foo\n", "is no date"),
    "a truth's tag before a word": ("a: !!bool maybe\n", "is neither true nor false"),
    "a mapping's tag before a word": ("a: !!map x\n", "is not YAML"),
    "a text's tag before a list": ("a: !!str [1]\n", "is not YAML"),
    "a Python object": ("a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    "a set": (f"{SMALLEST}, trigger_phrase: !!set {{x}}}}\n", "dataset.trigger_phrase"),
    "bytes": (f"{SMALLEST}, trigger_phrase: !!binary eHl6}}\n", ""),
    "a list that holds itself": ("a: &a [*a]\n", "line 1, column 8: *a stands for something that it is part of"),
    "a mapping that holds itself": ("defaults: &a\n  training: *a\n", "line 2, column 13: *a stands"),
    "a grandchild that holds it all": ("&a {x: &b [{y: *a}]}\n", "*a stands for"),
    "a merge of itself": ("a: &a {<<: *a}\n", "*a stands for"),
    "an alias bomb": (bomb(40), "each alias counted"),
    "a bomb of merges": (bomb(40).replace("{x: *", "{<<: *").replace("y: *", "<<: *"), "each alias counted"),
    "a chain of aliases": (chain(2000), "nested more than 32 deep"),
    "brackets": ("a: " + "[" * DEEP + "]" * DEEP, "line 1, column 35: is nested more than 32 deep"),
    "braces": ("{a: " * DEEP + "1" + "}" * DEEP, "nested more than 32 deep"),
    "dashes": ("- " * DEEP + "x", "nested more than 32 deep"),
    "question marks": ("? " * DEEP + "x", "nested more than 32 deep"),
    "brackets of JSON, never closed": ('{"a": ' + "[" * DEEP, "nested more than 32 deep"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3, column 1: a is there twice"),
    "a key of JSON twice": ('{"a": {"b": 1, "b": 2}}', "b is there twice"),
    "a list as a key": ("[1]: 2\n", "unhashable key"),
    "keys that are no text": (f"{SMALLEST}}}\n1: 2\nnull: 3\n2024-02-28: 4\n", ""),
    "NUL": ("a: b\nc: \x00d\n", "line 2, column 4: the character U+0000 is not allowed"),
    "an escape sequence": ("a: \x1b[2J\n", "the character U+001B is not allowed"),
    "two documents": ("a: 1\n---\nb: 2\n", "another document"),
    "another YAML": ("%YAML 9.9\n---\na: 1\n", "incompatible"),
    "a number": ("7", "holds no mapping"),
    "nothing": ("", "holds no mapping"),
    "20,000 unknown fields": ("".join(f"key{number}: 1\n" for number in range(20_000)), "unknown field"),
    "1 MiB and more": ("#" * (2**20 + 1), "is larger than 1 MiB"),
}


def lorafleet(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, arguments)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.stderr


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_spec_that_cannot_be_is_refused_in_a_line_that_names_the_place(tmp_path: Path, kind: str) -> None:
    text, says = HOSTILE[kind]
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    code, said = lorafleet("validate", str(path))
    assert (code, says in said) == (2, True), said[:500]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("kind", HOSTILE)
def test_and_so_is_a_batch(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(HOSTILE[kind][0], encoding="utf-8")
    assert lorafleet("batch", "submit", str(path), "--server", "127.0.0.1:1")[0] == 2


NOT_TEXT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe that nobody writes to": (os.mkfifo, "is not a plain file"),
    "a folder": (Path.mkdir, "is a folder"),
    "a link to a device without end": (lambda path: path.symlink_to("/dev/zero"), "is not a plain file"),
    "a link to itself": (lambda path: path.symlink_to(path), "symbolic links"),
    "latin-1": (lambda path: path.write_bytes(b"a: b\nc: caf\xe9\n"), "is not UTF-8 text: line 2, byte 0xe9"),
    "UTF-16": (lambda path: path.write_bytes("a: b".encode("utf-16")), "is not UTF-8 text: line 1"),
    "half of a surrogate pair": (lambda path: path.write_bytes(b"a: \xed\xa0\x80"), "is not UTF-8 text"),
    "what is not there": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("kind", NOT_TEXT)
@pytest.mark.parametrize("command", [("validate",), ("batch", "submit"), ("batch", "submit", "--defaults")])
@pytest.mark.parametrize("suffix", ["yaml", "csv"])
def test_what_is_no_file_with_text_is_told_and_never_waited_for(tmp_path: Path, kind: str, command: tuple[str, ...], suffix: str) -> None:
    make, says = NOT_TEXT[kind]
    path, good = tmp_path / f"it.{suffix}", tmp_path / "good.yaml"
    good.write_text("items: []")
    make(path)
    code, said = lorafleet(*command, str(path), *([str(good)] if "--defaults" in command else []))
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"{path}: ")
    assert says in said


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, f"{SMALLEST}}}".encode())
    os.close(theirs)
    try:
        assert spec_file.load(Path(f"/dev/fd/{ours}")).dataset.uri == "file:///d"
    finally:
        os.close(ours)


def test_json_of_a_program_is_a_spec_as_well(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(
        json.dumps({"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}, "labels": {"a": "ü"}}, ensure_ascii=False)
    )
    assert spec_file.load(path).labels == {"a": "ü"}


def test_aliases_of_people_stay(tmp_path: Path) -> None:
    path = tmp_path / "batch.yaml"
    path.write_text(
        "defaults: {base_model: {uri: 'file:///b'}}\n"
        "items:\n"
        "  - &first {job_id: a, dataset: &data {uri: 'file:///d'}, training: {max_steps: 5}}\n"
        "  - {<<: *first, job_id: b, dataset: {<<: *data, resolution: 256}}\n"
    )
    [_, second] = batch_file.load(path).items
    assert second == {"job_id": "b", "dataset": {"uri": "file:///d", "resolution": 256}, "training": {"max_steps": 5}}


@pytest.mark.parametrize(
    "override",
    [
        "a=" + "[" * DEEP,
        "training.seed=" + "9" * 5000,
        "dataset.trigger_phrase=2024-02-30",
        "a=&a [*a]",
        "a=\x00",
        ".".join("a" * 5000) + "=1",
    ],
)
def test_a_field_on_the_command_line_is_refused_alike(tmp_path: Path, override: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"{SMALLEST}}}\n")
    code, said = lorafleet("validate", str(path), "--set", override)
    assert code == 2
    assert max(map(len, said.splitlines())) < 300


CSV = {
    "a cell that never ends": ('dataset.uri\n"open', "line 2"),
    "NUL": ("dataset.uri\nfile:///a\nfile:///\x00b\n", ""),
    "a cell of 200,000 letters": (f"dataset.uri\n{'x' * 200_000}\n", "line 2: field larger than"),
    "a path without end": (f"{'.'.join('a' * 5000)}\n1\n", "is not the path of a field"),
    "brackets": (f"validation.prompts\n{'[' * DEEP}\n", "is not YAML"),
    "5,000 digits": (f"training.seed\n{'9' * 5000}\n", "row 1 (line 2): training.seed"),
    "a day that there is not": ("training.seed\n2024-02-30\n", "row 1 (line 2): training.seed: '2024-02-30' is not YAML"),
}


@pytest.mark.parametrize("kind", CSV)
def test_a_table_that_cannot_be_is_refused_with_its_line(tmp_path: Path, kind: str) -> None:
    text, says = CSV[kind]
    path = tmp_path / "batch.csv"
    path.write_text(text)
    code, said = lorafleet("batch", "submit", str(path))
    assert (code, says in said) == (2, True), said[:500]


def test_too_many_items_are_counted_and_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_text("dataset.uri\n" + "x\n" * 100_000)
    began = time.monotonic()
    code, said = lorafleet("batch", "submit", str(path))
    assert (code, said.splitlines()[-1].strip()) == (2, "items: has 100,000 items; a batch holds at most 10,000: make two of it")
    assert time.monotonic() - began < 30


TEXTS = (
    st.text(alphabet=st.sampled_from("ab:- \n[]{}&*!<>|?%'\"#,0x_.\t\\e2024-"))
    | st.text()
    | st.binary().map(lambda data: data.decode("latin-1"))
)


@given(TEXTS)
def test_any_text_is_a_value_or_a_mistake_of_yaml(text: str) -> None:
    try:
        yaml_text.load(text)
    except yaml.YAMLError as error:
        complaint = yaml_text.mistake(error, text)
    else:
        complaint = ""
    assert "\n" not in complaint


@given(data=st.binary() | TEXTS.map(lambda text: text.encode(errors="surrogatepass")), suffix=st.sampled_from(["yaml", "csv"]))
def test_any_file_is_a_batch_or_a_mistake_of_its_author(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    path.write_bytes(data)
    for load in (spec_file.load, batch_file.load):
        with pytest.raises(InvalidInput):  # none of these is complete
            load(path)
