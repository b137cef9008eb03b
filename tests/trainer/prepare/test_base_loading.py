"""A base is loaded from the files that were looked at, whole, whatever usual names they have; and from no others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from tests.trainer.prepare.test_base_model import edit, inspect, shard_denoiser
from trainer.families._parts import tokenize
from trainer.frozen_base import FrozenBase
from trainer.prepare import base_copy

UNET = "unet/diffusion_pytorch_model"


@pytest.fixture(autouse=True)
def node_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE_MODEL, tmp_path / "base"))


def loaded(path: Path, cache: Path) -> FrozenBase:
    return FrozenBase(inspect(path, cache), "fp32", torch.device("cpu"))


def same(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def to_fp16_names(base: Path) -> None:
    for part in (UNET, "vae/diffusion_pytorch_model", "text_encoder/model"):
        (base / f"{part}.safetensors").rename(base / f"{part}.fp16.safetensors")


def to_the_other_name(base: Path) -> None:
    (base / f"{UNET}.safetensors").rename(base / "unet" / "model.safetensors")
    (base / "text_encoder" / "model.safetensors").rename(base / "text_encoder" / "diffusion_pytorch_model.safetensors")


def to_shards_in_half_precision(base: Path) -> None:
    shard_denoiser(base, "diffusion_pytorch_model.safetensors.index.fp16.json")


@pytest.mark.parametrize("change", [to_fp16_names, to_the_other_name, shard_denoiser, to_shards_in_half_precision])
def test_weights_load_from_every_usual_name(change: Callable[[Path], None], tmp_path: Path, copy: Path):
    change(copy)
    plain, changed = loaded(BASE_MODEL, tmp_path / "cache"), loaded(copy, tmp_path / "cache")
    assert same(plain.parts["unet"], changed.parts["unet"])
    assert same(plain.parts["text_encoder"], changed.parts["text_encoder"])
    assert same(plain.for_encoding()["vae"], changed.for_encoding()["vae"])


def test_full_precision_is_taken_where_there_is_half_too(tmp_path: Path, copy: Path):
    halves = {name: torch.zeros_like(tensor) for name, tensor in load_file(copy / f"{UNET}.safetensors").items()}
    save_file(halves, copy / f"{UNET}.fp16.safetensors", {"format": "pt"})
    assert base_copy.materialise(inspect(copy, tmp_path / "cache")) == copy
    assert same(loaded(BASE_MODEL, tmp_path / "cache").parts["unet"], loaded(copy, tmp_path / "cache").parts["unet"])


def test_an_index_beside_whole_weights_is_not_followed(tmp_path: Path, copy: Path):
    """diffusers would prefer it, and load files that nobody has looked at."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(copy / f"{UNET}.safetensors").items()}
    save_file(zeros, copy / "unet" / "other.safetensors", {"format": "pt"})
    where = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(zeros, "other.safetensors")})
    (copy / f"{UNET}.safetensors.index.json").write_text(where)
    assert same(loaded(BASE_MODEL, tmp_path / "cache").parts["unet"], loaded(copy, tmp_path / "cache").parts["unet"])


def test_an_adapter_beside_the_text_encoder_is_not_followed(tmp_path: Path, copy: Path):
    (copy / "text_encoder" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/elses"}))
    assert same(loaded(BASE_MODEL, tmp_path / "cache").parts["text_encoder"], loaded(copy, tmp_path / "cache").parts["text_encoder"])


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path: Path, copy: Path):
    for file, part in ((f"{UNET}.safetensors", "unet"), ("text_encoder/model.safetensors", "text_encoder")):
        tensors = load_file(copy / file)
        tensors.pop(max(tensors))
        save_file(tensors, copy / file, {"format": "pt"})
        base = loaded(copy, tmp_path / "cache")
        with pytest.raises(RunFailed, match=f"{part}/ of the base cannot be loaded.* lack 1 of its weights") as caught:
            _ = base.parts["unet"] if part == "unet" else base.parts["text_encoder"]
        assert (caught.value.reason, caught.value.retryable) == ("BASE_MODEL_UNUSABLE", False)


def test_what_a_library_makes_of_a_bad_part_is_the_bases_fault(tmp_path: Path, copy: Path):
    edit(copy / "unet" / "config.json", act_fn="no such thing")
    edit(copy / "scheduler" / "scheduler_config.json", beta_schedule="no such thing")
    (copy / "tokenizer" / "vocab.json").write_text("[" * 100_000)
    (copy / "tokenizer" / "tokenizer.json").write_text("{}")
    base = loaded(copy, tmp_path / "cache")
    for part, load in (
        ("unet", lambda: base.parts["unet"]),
        ("scheduler", lambda: base.parts["scheduler"]),
        ("tokenizer", lambda: base.parts["tokenizer"]),
    ):
        with pytest.raises(RunFailed, match=f"{part}/ of the base cannot be loaded") as caught:
            load()
        assert caught.value.reason == "BASE_MODEL_UNUSABLE"
        assert len(caught.value.message) < 500
        assert "no such thing" not in caught.value.message, "what a file of the base says is not repeated"


@pytest.mark.parametrize("length", [..., 512])
def test_captions_are_cut_at_what_the_encoder_takes(tmp_path: Path, copy: Path, length: object):
    edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    base = loaded(copy, tmp_path / "cache")
    captions = ["fox " * 100, "fox"]
    assert tokenize(base.parts["tokenizer"], captions).input_ids.shape == (2, 24)
    assert base.family.encode_text(base.parts, captions)["text"].shape == (2, 24, 128)


def test_sample_pictures_are_drawn_without_importing_what_the_index_names(tmp_path: Path, copy: Path):
    """The index may change after it was looked at: pictures are drawn with the classes of the family all the same."""
    base = loaded(copy, tmp_path / "cache")
    edit(copy / "model_index.json", unet=["no_such_package", "Model"], safety_checker=["no_such_package", "Checker"])
    pipeline = base.pipeline()
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"
    pipeline("a fox", num_inference_steps=1, output_type="latent", width=64, height=64)


def test_a_link_whose_target_is_gone_is_made_anew(tmp_path: Path, copy: Path):
    to_fp16_names(copy)
    base_copy.materialise(inspect(copy, tmp_path / "cache"))
    copy = copy.rename(tmp_path / "moved")
    folder = base_copy.materialise(inspect(copy, tmp_path / "cache"))
    assert load_file(folder / f"{UNET}.safetensors").keys() == load_file(BASE_MODEL / f"{UNET}.safetensors").keys()
