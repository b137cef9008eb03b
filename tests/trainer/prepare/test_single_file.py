"""A checkpoint in one file is its base's folder: told by its tensors, loaded whole, digested alike; and refused by name if it is none."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from examples.demo import BASE_MODEL
from lorafleet.catalog import FAMILIES, single_file
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from tests.trainer.in_store import uploaded
from tests.trainer.prepare import single_files
from tests.trainer.sd.bases import write_sd2
from tests.trainer.sdxl import tiny_base
from trainer.frozen_base import FrozenBase
from trainer.prepare import base_copy, base_model, clip_vocabulary
from trainer.prepare import single_file as preparing
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def node_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "node"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"sd1": BASE_MODEL, "sd2": write_sd2(folder / "sd2"), "sdxl": tiny_base.write(folder / "sdxl")}


@pytest.fixture
def as_tiny(monkeypatch: pytest.MonkeyPatch, bases: dict[str, Path]):
    """The published configs are of models that are larger: in their place those of the tiny folders."""

    def configs(family: str) -> dict[str, dict[str, Any]]:
        parts = {part.name: bases[family] / part.config for part in FAMILIES.get(family).parts}
        return {name: json.loads(path.read_text()) for name, path in parts.items() if path.exists()}

    monkeypatch.setattr(preparing, "configs", configs)


def given(base: Path, family: str) -> dict[str, str]:
    """What the file lacks."""
    names = [part.name for part in FAMILIES.get(family).tokenizers] + (["scheduler"] if family == "sd2" else [])
    return {name: f"file://{base / name}" for name in names}


def inspect(file: Path, tmp_path: Path, **fields: Any) -> BaseModel:
    return base_model.inspect(BaseModelSpec(uri=f"file://{file}", **fields), Folder(f"file://{tmp_path}/cache"))


def refusal(file: Path, tmp_path: Path, **fields: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        inspect(file, tmp_path, **fields)
    return caught.value


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_it_is_the_folder_that_it_was_made_from(tmp_path: Path, bases: dict[str, Path], as_tiny: None, family: str):
    file = single_files.write(bases[family], family, tmp_path / "one.safetensors")
    found, folder = inspect(file, tmp_path, parts=given(bases[family], family)), inspect(bases[family], tmp_path)
    assert (found.family, found.uri, found.digest) == (family, f"file://{file}", folder.digest)
    assert found.trainable.keys() == folder.trainable.keys()
    assert found.denoiser_modules == folder.denoiser_modules
    ours, theirs = FrozenBase(found, "fp32", CPU), FrozenBase(folder, "fp32", CPU)
    for part in FAMILIES.get(family).parts:
        if part.weights_name:
            assert same(ours.for_encoding()[part.name], theirs.for_encoding()[part.name]), part.name


def test_one_in_a_store_is_turned_on_disk_where_nothing_else_is_kept(
    tmp_path: Path, bases: dict[str, Path], as_tiny: None, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", "off")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "put").mkdir()
    single_files.write(bases["sd1"], "sd1", tmp_path / "put" / "one.safetensors")
    spec = BaseModelSpec(uri=f"{uploaded(tmp_path / 'put')}/one.safetensors", parts=given(bases["sd1"], "sd1"))
    found = base_model.inspect(spec, Folder(f"file://{tmp_path}/cache"))
    assert base_copy.streamed(found, "unet") == {}
    assert [path for path in (tmp_path / "home/.cache/lorafleet").rglob("*.safetensors") if path.parent.name == "unet"]
    assert same(FrozenBase(found, "fp32", CPU).parts["unet"], FrozenBase(inspect(bases["sd1"], tmp_path), "fp32", CPU).parts["unet"])


def test_averaged_weights_are_taken_where_it_has_both(tmp_path: Path, bases: dict[str, Path], as_tiny: None):
    file = single_files.write(bases["sd1"], "sd1", tmp_path / "one.safetensors")
    tensors = load_file(file)
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")}
    averaged = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor.clone() for name, tensor in unet.items()}
    save_file({**tensors, **{name: tensor + 1 for name, tensor in unet.items()}, **averaged}, file)
    assert inspect(file, tmp_path, parts=given(bases["sd1"], "sd1")).digest == inspect(bases["sd1"], tmp_path).digest


def test_a_part_that_it_lacks_is_named_and_may_be_given(tmp_path: Path, bases: dict[str, Path], as_tiny: None):
    file = single_files.write(bases["sdxl"], "sdxl", tmp_path / "one.safetensors")
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(("first_stage_model.", "conditioner.embedders.1."))}
    save_file(kept, file)
    error = refusal(file, tmp_path, parts=given(bases["sdxl"], "sdxl"))
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "lacks vae; name its folder in base_model.parts.vae" in error.message
    assert "lacks text_encoder_2; name its folder in base_model.parts.text_encoder_2" in error.message
    others = {name: f"file://{bases['sdxl'] / name}" for name in ("vae", "text_encoder_2")}
    found = inspect(file, tmp_path, parts={**given(bases["sdxl"], "sdxl"), **others})
    assert found.digest == inspect(bases["sdxl"], tmp_path).digest


def test_what_it_does_not_say_is_asked_for(tmp_path: Path, bases: dict[str, Path], as_tiny: None):
    file = single_files.write(bases["sd2"], "sd2", tmp_path / "one.safetensors")
    error = refusal(file, tmp_path)
    assert "does not say what it predicts" in error.message
    assert "name a scheduler's folder in base_model.parts.scheduler" in error.message
    assert "has no tokenizer: name its folder in base_model.parts.tokenizer, or install open-clip-torch" in error.message


@pytest.mark.parametrize(
    ("marks", "kind", "zero_snr"),
    [
        ((), "epsilon", False),
        (("v_pred",), "v_prediction", False),
        (("v_pred", "ztsnr"), "v_prediction", True),
        (("ztsnr",), "epsilon", False),
    ],
)
def test_keys_that_mark_v_prediction_are_believed(
    tmp_path: Path, bases: dict[str, Path], as_tiny: None, marks: tuple[str, ...], kind: str, zero_snr: bool
):
    file = single_files.write(bases["sdxl"], "sdxl", tmp_path / "one.safetensors", **{mark: torch.zeros(0) for mark in marks})
    facts = inspect(file, tmp_path, parts=given(bases["sdxl"], "sdxl")).facts
    assert (facts.prediction_type, facts.zero_terminal_snr) == (kind, zero_snr)


FIRST = "model.diffusion_model.input_blocks.0.0."
UNET = {f"{FIRST}weight": [4, 4, 3, 3], f"{FIRST}bias": [4], "model.diffusion_model.input_blocks.1.1.a.attn2.to_k.weight": [4, 768]}
OTHERS: dict[str, tuple[dict[str, list[int]], str]] = {
    "inpainting": ({**UNET, f"{FIRST}weight": [4, 9, 3, 3]}, "takes 9 channels: it is a checkpoint for inpainting"),
    "editing": ({**UNET, f"{FIRST}weight": [4, 8, 3, 3]}, "for editing"),
    "LCM": ({**UNET, "model.diffusion_model.time_embed.cond_proj.weight": [4, 4]}, "is an LCM, distilled"),
    "refiner": ({**UNET, "conditioner.embedders.0.model.ln_final.weight": [4]}, "is SDXL's refiner"),
    "FLUX": ({"double_blocks.0.img_attn.qkv.weight": [4, 4]}, "is a FLUX, or the like. Tensors of one file that are looked for"),
    "an adapter": ({"lora_unet_a.lora_down.weight": [4, 4]}, "an adapter, no base"),
    "a part": ({"down_blocks.0.resnets.0.conv1.weight": [4, 4, 3, 3]}, "of a layout that is not known"),
    "one dimension": ({**UNET, f"{FIRST}weight": [4]}, "lacks"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_base_in_one_file_is_told_what_it_is(tmp_path: Path, name: str):
    shapes, said = OTHERS[name]
    file = tmp_path / "one.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    error = refusal(file, tmp_path)
    assert error.reason in ("BASE_MODEL_UNSUPPORTED", "BASE_MODEL_INCOMPLETE")
    assert error.message.startswith(f"base_model.uri: file://{file} ")
    assert said in error.message


def test_a_part_of_another_size_is_named(tmp_path: Path, bases: dict[str, Path]):
    """Against the published configs a tiny one is none."""
    file = single_files.write(bases["sd1"], "sd1", tmp_path / "one.safetensors")
    error = refusal(file, tmp_path, parts=given(bases["sd1"], "sd1"))
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"file://{file} lacks" in error.message or f"file://{file} has a" in error.message


def test_a_file_of_another_family_than_named_is_refused(tmp_path: Path, bases: dict[str, Path]):
    file = single_files.write(bases["sd1"], "sd1", tmp_path / "one.safetensors")
    error = refusal(file, tmp_path, family="sdxl")
    assert (error.reason, "write sd1, or leave it out" in error.message) == ("BASE_MODEL_OTHER_FAMILY", True)


@pytest.mark.parametrize(
    "change", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.write_bytes(b"x" * 100), Path.unlink]
)
def test_half_a_file_and_none_are_told(tmp_path: Path, bases: dict[str, Path], change: Any):
    file = single_files.write(bases["sd1"], "sd1", tmp_path / "one.safetensors")
    change(file)
    assert "upload it again" in (message := refusal(file, tmp_path).message) or "is not there" in message


def test_clips_vocabulary_is_made_of_what_the_package_has(tmp_path: Path):
    lines = ['"bpe_simple_vocab"', "h e</w>", "t he</w>", *(f"{number} x" for number in range(48892))]
    (tmp_path / "bpe.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    clip_vocabulary.write_vocabulary(tmp_path / "bpe.gz", tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert (len(vocabulary), vocabulary["!"], vocabulary["he</w>"], vocabulary["<|endoftext|>"]) == (49408, 0, 512, 49407)
    assert (tmp_path / "merges.txt").read_text().split("\n")[:2] == ["#version: 0.2", "h e</w>"]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_published_configs_are_of_their_family(family: str):
    configs, facts = single_file.configs(family), FAMILIES.get(family)
    assert facts.is_it(configs)
    assert list(facts.misfits(configs)) == []
    assert [problem for part in facts.parts for problem in part.problems(configs.get(part.name, {}), family)] == []


def test_old_names_in_folders_are_the_same_tensors(tmp_path: Path, bases: dict[str, Path]):
    old = Path(shutil.copytree(bases["sdxl"], tmp_path / "old"))
    path = old / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    renamed = {
        next((name.replace(f".{new}.", f".{was}.") for new, was in names.items() if f".{new}." in name), name): tensor
        for name, tensor in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path, {"format": "pt"})
    assert inspect(old, tmp_path).digest == inspect(bases["sdxl"], tmp_path).digest
