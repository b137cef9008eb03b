"""`lorafleet generate`: options become a request, its fields may come from a file, and what is wrong is told at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from examples.demo import BASE_MODEL
from lorafleet.cli import app
from tests.trainer.generation.conftest import Loaded
from trainer.commands import generate
from trainer.commands.generate import Asked


def fields(request: Path | None = None, **asked: Any) -> dict[str, Any]:
    found, wrong = generate._fields(Asked(**asked), request)
    assert not wrong
    return found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["generate", *arguments])


def test_sets_of_adapters_are_files_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a+b:2.safetensors").write_bytes(b"")
    found = fields(adapters=["none", "a.safetensors", "a.safetensors:0.5+s3://bucket/b.safetensors:-1", "a+b:2.safetensors"])
    here = f"file://{tmp_path}"
    assert found["adapters"] == [
        [],
        [{"uri": f"{here}/a.safetensors"}],
        [{"uri": f"{here}/a.safetensors", "weight": 0.5}, {"uri": "s3://bucket/b.safetensors", "weight": -1.0}],
        [{"uri": f"{here}/a+b:2.safetensors"}],
    ]


def test_options_stand_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "request.yaml"
    path.write_text("base_model: {uri: models/base, family: sd1}\nadapters: [[{uri: a.safetensors}]]\nprompts: [a]\nseeds: [1, 2]\n")
    found = fields(path, seeds=[7], size="512x768", steps=3)
    assert found["base_model"] == {"uri": f"file://{tmp_path}/models/base", "family": "sd1"}
    assert found["adapters"] == [[{"uri": f"file://{tmp_path}/a.safetensors"}]]
    assert (found["seeds"], found["width"], found["height"], found["num_inference_steps"]) == ([7], 512, 768, 3)
    assert fields(path, base="/other")["base_model"] == {"uri": "file:///other", "family": "sd1"}


def test_wrong_options_and_wrong_fields_are_told_together(tmp_path: Path):
    found = run("--base", "b", "--prompt", "a" * 10_000, "--adapter", "a:x", "--size", "64", "--steps", "0", "--out", str(tmp_path))
    assert found.exit_code == 2
    told = found.stderr.splitlines()
    assert told == [
        "--adapter: a:x: x is no weight; write a number after the colon",
        "--size: 64 is no WIDTHxHEIGHT, such as 512x768",
        "prompts[0]: String should have at most 2000 characters",
        "num_inference_steps: Input should be greater than or equal to 1 (got 0)",
    ]


def test_what_is_missing_is_told_where_nothing_is_given(tmp_path: Path):
    found = run("--out", str(tmp_path))
    assert found.exit_code == 2
    assert found.stderr.splitlines() == ["base_model: is required", "prompts: is required"]


def test_a_base_that_is_none_is_told_with_files_that_are_no_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.safetensors").write_text("nothing of the kind")
    (tmp_path / "base").mkdir()
    adapter = str(tmp_path / "a.safetensors")
    found = run("--base", str(tmp_path / "base"), "--prompt", "a", "--adapter", adapter, "--out", str(tmp_path / "out"))
    assert found.exit_code == 2
    assert "has no model_index.json" in found.stderr
    assert "a.safetensors is no safetensors file" in found.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_are_drawn_and_told(emoji: Loaded, tmp_path: Path):
    out = tmp_path / "out"
    asked = ["--base", str(BASE_MODEL), "--prompt", "a cat", "--steps", "1", "--guidance", "1", "--out", str(out), "--unpadded"]
    adapter = f"{emoji.adapters / 'lora.safetensors'}:0.5"
    told = json.loads(run(*asked, "--adapter", "none", "--adapter", adapter, "-o", "json").stdout)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(each["file"] for each in told["pictures"]), "generation.json", "sheet.png"]
    )
    again = run(*asked, "--adapter", "none")
    assert again.stdout == f"{out}: 0 pictures drawn in 0.0 s, 1 were there\n"
