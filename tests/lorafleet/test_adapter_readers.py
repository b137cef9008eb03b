"""Before a DoRA is trained, `lorafleet validate` says which programs will apply its files as they were trained."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lorafleet import adapter_readers, spec
from lorafleet.cli import app
from lorafleet.errors import InvalidSpec

GOOD = {"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}}


def test_validate_names_the_readers_of_a_dora(tmp_path: Path):
    file = tmp_path / "spec.yaml"
    file.write_text("base_model: {uri: file:///b}\ndataset: {uri: file:///d}\nadapter: {method: dora}\noutput: {formats: [kohya]}\n")
    said = CliRunner().invoke(app, ["validate", str(file)])
    assert said.exit_code == 0
    assert "is a good spec" in said.stdout
    assert "the kohya file in AUTOMATIC1111: WRONG" in said.stdout
    assert "add diffusers" in said.stdout
    assert "WRONG" not in CliRunner().invoke(app, ["validate", str(file), "-o", "yaml"]).stdout, "that is for programs"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("adapter: {method: tlora}", "adapter.method: a file of tlora is a LoRA of its whole rank"),
        ("training: {optimizer: prodigy, learning_rate: 1e-4}", "training.learning_rate: prodigy finds its rate by itself"),
    ],
)
def test_validate_says_what_is_hardly_ever_meant(tmp_path: Path, asked: str, told: str):
    file = tmp_path / "spec.yaml"
    file.write_text(f"base_model: {{uri: file:///b}}\ndataset: {{uri: file:///d}}\n{asked}\n")
    said = CliRunner().invoke(app, ["validate", str(file)])
    assert said.exit_code == 0
    assert told in " ".join(said.stdout.split())
    assert told not in CliRunner().invoke(app, ["validate", str(file), "-o", "yaml"]).stdout, "that is for programs"


@pytest.mark.parametrize(("family", "is_told"), [("sd1", False), ("flux", True), (None, False)])
def test_a_program_that_does_not_know_the_names_is_not_told_of(family: str | None, is_told: bool):
    base = {"uri": "file:///b", **({"family": family} if family else {})}
    told = adapter_readers.hints(spec.parse({**GOOD, "base_model": base, "adapter": {"method": "dora"}}))
    assert any(each.startswith("the diffusers file in ComfyUI") for each in told) == is_told


def test_a_lora_needs_no_words():
    assert adapter_readers.hints(spec.parse(GOOD)) == []


@pytest.mark.parametrize("name", ["fox", "Red-Fox_v1.2", "a" * 100, "0"])
def test_a_name_of_files_is_kept(name: str):
    assert spec.parse({**GOOD, "output": {"name": name}}).output.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../a",
        "a\\b",
        ".fox",
        "-fox",
        "fox.",
        "a..b",
        "a b",
        "fox\n",
        "fox:1",
        "füchse",
        "a" * 101,
        "fox.safetensors",
        "CON",
        "nul.v1",
        7,
    ],
)
def test_a_name_that_is_no_safe_file_name_is_refused_with_every_other_fault(name: object):
    with pytest.raises(InvalidSpec) as caught:
        spec.parse({**GOOD, "output": {"name": name, "precision": "fp8"}})
    assert {each.field for each in caught.value.violations} == {"output.name", "output.precision"}


def test_defaults_are_left_out_for_trainers_that_do_not_know_them():
    assert spec.parse(GOOD).model_dump(mode="json")["output"] == {"uri": None, "formats": ["diffusers", "kohya"]}
