"""Batches on disk and in stores: what they mean, and how their mistakes are named."""

from pathlib import Path

import boto3
import pytest

from lorafleet.batch import file as batch_file
from lorafleet.batch import folders
from lorafleet.batch.file import BatchFile
from lorafleet.errors import InvalidSpec, LorafleetError, NotFound, Violation

YAML = """
batch_id: tonight
defaults:
  base_model: {uri: "file:///base"}
  training: {max_steps: 60, learning_rate: 1e-3}
items:
  - job_id: fox
    dataset: {uri: "file:///d/fox"}
  - dataset: {uri: "file:///d/cat"}
    training: {max_steps: 90}
"""
CSV = """job_id,dataset.uri,training.max_steps,labels.customer,validation.prompts
fox,file:///d/fox,90,007,"[a fox, a cat]"
cat,file:///d/cat,,no,
"""
BASE = {"base_model": {"uri": "file:///base"}}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "defaults.yaml"
    path.write_text("base_model: {uri: 'file:///base'}\ntraining: {max_steps: 60}\n")
    return path


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def violations(error: InvalidSpec) -> list[str]:
    return [str(violation) for violation in error.violations]


def test_yaml_holds_defaults_items_and_an_id(tmp_path: Path) -> None:
    read = batch_file.load(written(tmp_path, "styles.yaml", YAML))
    assert read.batch_id == "tonight"
    assert read.defaults["training"] == {"max_steps": 60, "learning_rate": 0.001}
    assert [item["dataset"]["uri"] for item in read.items] == ["file:///d/fox", "file:///d/cat"]


def test_set_and_a_file_of_defaults_lie_around_the_files_own(tmp_path: Path, base: Path) -> None:
    text = YAML.replace('  base_model: {uri: "file:///base"}\n', "")
    read = batch_file.load(written(tmp_path, "styles.yaml", text), defaults=base, overrides=["training.learning_rate=1e-4"])
    assert read.defaults == {"base_model": {"uri": "file:///base"}, "training": {"max_steps": 60, "learning_rate": 0.0001}}


def test_mistakes_in_yaml_are_named_by_index(tmp_path: Path) -> None:
    text = YAML.replace("max_steps: 90", "max_stps: 90") + "  - 7\n"
    with pytest.raises(InvalidSpec) as caught:
        batch_file.load(written(tmp_path, "styles.yaml", text))
    assert violations(caught.value)[:2] == ["items[2]: is not a mapping", "items[1].training.max_stps: unknown field; close: max_steps"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults: {}\n", "items: is required"),
        ("items: 7\n", "items: is not a list"),
        ("items: []\n", "items: is empty"),
        ("items: [{}]\ndefault: {}\n", "default: unknown field; close: defaults"),
        ("items: [{}]\ndefaults: [1]\n", "defaults: is not a mapping"),
        ("items: [{}]\nbatch_id: 7\n", "batch_id: is not text"),
    ],
)
def test_yaml_of_another_shape_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        batch_file.load(written(tmp_path, "styles.yaml", text))


def test_csv_has_an_item_in_each_row_typed_as_yaml_but_for_texts(tmp_path: Path, base: Path) -> None:
    read = batch_file.load(written(tmp_path, "styles.csv", CSV), defaults=base)
    fox, cat = read.items
    assert fox == {
        "job_id": "fox",
        "dataset": {"uri": "file:///d/fox"},
        "training": {"max_steps": 90},
        "labels": {"customer": "007"},
        "validation": {"prompts": ["a fox", "a cat"]},
    }
    assert cat == {"job_id": "cat", "dataset": {"uri": "file:///d/cat"}, "labels": {"customer": "no"}}


def test_csv_of_a_spreadsheet_is_read(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "styles.CSV"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode() + b",,,,\r\n\r\n")
    assert len(batch_file.load(path, defaults=base).items) == 2


def test_mistakes_in_csv_are_named_by_row_and_line(tmp_path: Path, base: Path) -> None:
    rows = [
        "job_id,dataset.uri,training.max_steps",
        'fox,"file:///d/fox',  # a cell over two lines
        'x",90',
        "cat,file:///d/cat,many",
        "owl,file:///d/owl,[",
        "fox,file:///d/bee",
    ]
    with pytest.raises(InvalidSpec) as caught:
        batch_file.load(written(tmp_path, "styles.csv", "\n".join(rows)), defaults=base)
    found = violations(caught.value)
    assert found[0] == "row 3 (line 5): training.max_steps: '[' is not YAML"
    assert found[1] == "row 4 (line 6): has 2 cells, but the header has 3"
    assert any(one.startswith("row 1 (line 2): dataset.uri: ") for one in found)
    assert any(one.startswith("row 2 (line 4): training.max_steps: ") for one in found)
    assert found[-1] == "row 4 (line 6): job_id: 'fox' is that of row 1 (line 2) too"


def test_what_every_row_lacks_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec) as caught:
        batch_file.load(written(tmp_path, "styles.csv", CSV))
    assert violations(caught.value) == ["every row: base_model: is required"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("a..b,c\n1,2\n", "'a..b' is not the path"),
        ("dataset.uri,dataset.uri\nx,y\n", "dataset.uri is there twice"),
        ('dataset.uri\n"open', "is no CSV"),
    ],
)
def test_csv_that_cannot_be_used_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        batch_file.load(written(tmp_path, "styles.csv", text))


def test_mistake_that_the_server_finds_is_told_by_its_place_in_the_file() -> None:
    read = BatchFile(defaults={}, items=[{}, {}], places=["row 1 (line 2)", "row 2 (line 3)"], every="every row")
    refused = InvalidSpec([Violation(field="items[1].dataset.uri", message="is empty"), Violation(field="items[1]", message="as items[0]")])
    assert violations(read.in_its_words(refused)) == ["row 2 (line 3): dataset.uri: is empty", "row 2 (line 3): as row 1 (line 2)"]


# Folders.


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    for name in ("Fox Red", "fox-red", "2024", ".hidden"):
        (tmp_path / "styles" / name / "pictures").mkdir(parents=True)
    (tmp_path / "styles" / "notes.txt").write_text("no folder")
    return tmp_path / "styles"


def test_each_folder_becomes_an_item_with_its_name(styles: Path) -> None:
    read = folders.each(
        f"{styles.as_uri()}/*/",
        defaults=BASE,
        overrides=["dataset.trigger_phrase={name} style", "validation.prompts=[a {name} fox, a cat]"],
    )
    assert [item["job_id"] for item in read.items] == ["style-2024", "fox-red", "fox-red-2"]
    assert [item["labels"] for item in read.items] == [{"folder": "2024"}, {"folder": "Fox Red"}, {"folder": "fox-red"}]
    assert read.items[1]["dataset"] == {"trigger_phrase": "Fox Red style", "uri": f"{styles.as_uri()}/Fox Red"}
    assert read.items[1]["validation"] == {"prompts": ["a Fox Red fox", "a cat"]}


def test_ids_are_made_as_asked_so_that_the_same_folders_can_be_a_second_batch(styles: Path) -> None:
    read = folders.each(f"{styles.as_uri()}/*/", defaults=BASE, ids="v2 {name}")
    assert [item["job_id"] for item in read.items] == ["v2-2024", "v2-fox-red", "v2-fox-red-2"]


def test_pattern_may_name_some_folders_and_what_lies_below_them(styles: Path) -> None:
    read = folders.each(f"{styles.as_uri()}/fox*/pictures", defaults=BASE)
    assert [item["dataset"]["uri"] for item in read.items] == [f"{styles.as_uri()}/fox-red/pictures"]


def test_mistake_of_a_folder_is_told_by_its_name(styles: Path) -> None:
    (styles / "a%b").mkdir()
    with pytest.raises(InvalidSpec, match=r"folder a%b: dataset\.uri: "):
        folders.each(f"{styles.as_uri()}/*", defaults=BASE)


@pytest.mark.parametrize("pattern", ["s3://*/", "s3://styles/", "s3://styles/*/*/", "styles/*"])
def test_pattern_without_one_star_for_the_folders_is_told(pattern: str) -> None:
    with pytest.raises(InvalidSpec, match=r"one \*"):
        folders.each(pattern, defaults=BASE)


def test_pattern_that_finds_nothing_is_told(styles: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"no folder in .* matches"):
        folders.each(f"{styles.as_uri()}/owl*/", defaults=BASE)
    with pytest.raises(NotFound):
        list(folders.each(f"{styles.as_uri()}/absent/*/", defaults=BASE).items)


def test_name_stands_for_folders_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="--each"):
        batch_file.load(written(tmp_path, "styles.yaml", YAML), overrides=["dataset.trigger_phrase={name} style"])


def test_job_ids_are_all_different_and_short_enough() -> None:
    names = ["x" * 60, "x" * 50, "Ölbild 2", "Olbild-2", "-", "日本", "a-2", "a", "A"]
    ids = folders.job_ids(names)
    assert ids == ["x" * 40, "x" * 38 + "-2", "olbild-2", "olbild-2-2", "style", "style-2", "a-2", "a", "a-3"]


def test_folders_of_a_bucket_are_read_page_by_page(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="many-styles")
    for number in range(7):
        client.put_object(Bucket="many-styles", Key=f"in/style {number}/a.png", Body=b"x")
    client.put_object(Bucket="many-styles", Key="in/notes.txt", Body=b"x")
    monkeypatch.setattr("lorafleet.blobs.PAGE_SIZE", 2)
    read = folders.each("s3://many-styles/in/*/", defaults=BASE)
    assert [item["dataset"]["uri"] for item in read.items] == [f"s3://many-styles/in/style {number}" for number in range(7)]
    with pytest.raises(LorafleetError, match="absent-bucket"):
        folders.each("s3://absent-bucket/*/", defaults=BASE)
