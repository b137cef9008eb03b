"""Specs on disk: old files keep meaning what they meant, and mistakes in them are named."""

import json
from pathlib import Path

import pytest

from lorafleet import spec, spec_file
from lorafleet.errors import InvalidInput, InvalidSpec

GOLDEN = Path(__file__).parent / "golden"
SMALLEST = "base_model: {uri: 'file:///b'}\ndataset: {uri: 'file:///d'}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SMALLEST)
    return path


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_spec_file_of_an_earlier_release_means_what_it_meant(path: Path) -> None:
    """On the base that it was written for: what it does not say of its family is told from that."""
    meant = json.loads(path.with_suffix(".json").read_text())
    assert spec_file.load(path).on("sd1") == spec.parse(meant)  # parsed too: fields that came later have their defaults


def test_override_sets_a_field_with_the_type_that_yaml_gives_it(file: Path) -> None:
    loaded = spec_file.load(file, ["training.max_steps=7", "validation.prompts=[a fox, a cat]", "labels.team=red"])
    assert loaded.training.max_steps == 7
    assert loaded.validation.prompts == ("a fox", "a cat")
    assert loaded.labels == {"team": "red"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.max_steps", "is not path=value"),
        ("training..x=1", "is not path=value"),
        ("training.max_stps=1", "close: max_steps"),
        ("base_model.uri.x=1", "uri is not a mapping"),
        ("training.max_steps=[", "is not YAML"),
    ],
)
def test_bad_override_is_a_violation(file: Path, override: str, says: str) -> None:
    with pytest.raises(InvalidSpec, match=says):
        spec_file.load(file, [override])


def test_scientific_notation_without_a_point_is_a_number(file: Path) -> None:
    file.write_text(SMALLEST + "training: {learning_rate: 1e-3}\n")
    assert spec_file.load(file).training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALLEST + "dataset: {uri: 'file:///other'}\n", "dataset is there twice"),
        ("a: [", "is not YAML"),
        ("- a\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_broken_file_is_a_violation_that_names_it(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidSpec, match=says) as caught:
        spec_file.load(file)
    assert caught.value.violations[0].field == str(file)


def test_absent_file_is_a_violation_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_file.load(tmp_path / "absent.yaml")
    assert caught.value.message == f"{tmp_path}/absent.yaml: no such file"
    assert caught.value.violations[0].field == f"{tmp_path}/absent.yaml"


def test_file_that_is_not_yaml_says_where_on_one_line(file: Path) -> None:
    file.write_text("base_model:\n  uri: a: b\n")
    with pytest.raises(InvalidSpec) as caught:
        spec_file.load(file)
    assert caught.value.violations[0].message == "is not YAML: line 2, column 9: mapping values are not allowed in this context"


def test_an_override_that_cannot_be_set_hides_no_other_mistake(file: Path) -> None:
    file.write_text("base_model: {uri: file:///b}\ndataset: {uri: file:///d}\n")
    with pytest.raises(InvalidSpec) as caught:
        spec_file.load(file, ["rank", "adapter.rank=0", "labels.a.b=1", "training.seed=-1"])
    assert {"rank", "adapter.rank", "training.seed"} <= {violation.field for violation in caught.value.violations}
