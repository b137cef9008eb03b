"""The base model: found whole or refused with what is missing; target modules checked against it."""

import json
import shutil
from pathlib import Path

import pytest

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from trainer import base_model
from trainer.base_model import BaseModel
from trainer.storage import Folder


def inspect(path: Path, cache: Path) -> BaseModel:
    return base_model.inspect(BaseModelSpec(uri=f"file://{path}"), Folder(f"file://{cache}"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(BASE_MODEL, tmp_path / "base")
    return tmp_path / "base"


def refusal(path: Path, cache: Path) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        inspect(path, cache)
    return caught.value


def test_it_says_what_it_needs_to_be_trained(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    assert (found.resolution, found.resolution_step, found.vae_factor) == (64, 16, 4)
    assert "README.md" not in found.files


def test_digests_are_taken_once_and_of_the_content(tmp_path: Path, copy: Path):
    here, there = inspect(BASE_MODEL, tmp_path / "cache"), inspect(copy, tmp_path / "cache")
    assert here.digest == there.digest
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    changed = inspect(copy, tmp_path / "cache")
    assert changed.digest != here.digest
    assert changed.part_digest("vae/") == here.part_digest("vae/")
    assert inspect(BASE_MODEL, tmp_path / "cache") == here


def test_what_is_missing_is_named(tmp_path: Path, copy: Path):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copy / "tokenizer")
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "tokenizer/ (its config)" in error.message
    assert "vae/*.safetensors" in error.message


def test_another_family_is_refused(tmp_path: Path, copy: Path):
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    assert refusal(copy, tmp_path).reason == "BASE_MODEL_OTHER_FAMILY"


def test_pickled_weights_are_refused(tmp_path: Path, copy: Path):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_PICKLED"
    assert "unet" in error.message


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path):
    assert "no model_index.json" in refusal(tmp_path / "empty", tmp_path).message


def test_target_modules_are_those_of_the_model(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    violations = base_model.check_target_modules(found, ["to_q", "to_kk", "ff.net.0.proj", "norm1", "upsamplers.0.conv"])
    assert [each.field for each in violations] == ["adapter.target_modules[1]", "adapter.target_modules[3]"]
    assert "close: to_k" in violations[0].message


def test_a_resolution_must_divide(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    assert base_model.check_resolution(found, 64) == []
    assert "nearest: 64" in base_model.check_resolution(found, 70)[0].message


def test_half_an_upload_is_named(tmp_path: Path, copy: Path):
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "vae/diffusion_pytorch_model.safetensors is cut short" in error.message


@pytest.mark.parametrize("content", ["{no json", "[]", "{}"])
def test_a_broken_config_is_named(tmp_path: Path, copy: Path, content: str):
    (copy / "unet" / "config.json").write_text(content)
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "unet/config.json" in error.message


def test_a_target_that_is_a_part_and_no_layer_is_refused(tmp_path: Path):
    violations = base_model.check_target_modules(inspect(BASE_MODEL, tmp_path), ["0"])
    assert "which is not a layer" in violations[0].message
