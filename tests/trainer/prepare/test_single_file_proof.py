"""Checkpoints in one file at the sizes that people have: Stable Diffusion 1.5 and XL in half precision, of random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorafleet.catalog import FAMILIES
from lorafleet.catalog.single_file import configs
from tests.trainer import shapes
from tests.trainer.packs import Packs
from tests.trainer.prepare import single_files
from tests.trainer.sdxl import tiny_base
from trainer.group import Group
from trainer.prepare import single_file

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

_BUILT: dict[str, Any] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
}


def write_folder(folder: Path, family: str) -> Path:
    """A base of the published shapes; each weight small, so that nothing grows on its way through."""
    facts, known = FAMILIES.get(family), configs(family)
    tile = (torch.randn(2**20, generator=torch.Generator().manual_seed(1)) * 0.02).half()
    index: dict[str, Any] = {"_class_name": facts.pipeline}
    vocabulary, merges = tiny_base._vocabulary()
    for part in facts.parts:
        (folder / part.name).mkdir(parents=True)
        config = known[part.name]
        index[part.name] = [part.library, config.get("_class_name", part.classes[0])]
        (folder / part.config).write_text(json.dumps(config))
        if part.weights_name:
            found = {name: _filled(shape, tile) for name, shape in _shapes(part.classes[0], config).items()}
            save_file(found, folder / part.name / f"{part.weights_name}.safetensors", {"format": "pt"})
        elif part.name.startswith("tokenizer"):
            (folder / part.name / "vocab.json").write_text(json.dumps(vocabulary))
            (folder / part.name / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _shapes(kind: str, config: dict[str, Any]) -> dict[str, torch.Size]:
    fields = {name: value for name, value in config.items() if name != "_class_name"}
    with torch.device("meta"):
        model = (
            _BUILT[kind](CLIPTextConfig(**fields) if kind.startswith("CLIP") else None)
            if kind.startswith("CLIP")
            else _BUILT[kind](**fields)
        )
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _filled(shape: torch.Size, tile: torch.Tensor) -> torch.Tensor:
    count = shape.numel()
    return tile.repeat(count // len(tile) + 1)[:count].reshape(shape).clone()


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_it_loads_trains_a_step_and_has_its_folders_digest(tmp_path: Path, group: Group, monkeypatch: pytest.MonkeyPatch, family: str):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "node"))
    folder = write_folder(tmp_path / "folder", family)
    file = single_files.write(folder, family, tmp_path / f"{family}.safetensors")
    packs, data = Packs(tmp_path / "out", group), shapes.write(tmp_path / "data")
    parts = {part.name: f"file://{folder}/{part.name}" for part in FAMILIES.get(family).tokenizers}
    fields = {
        "dataset": {"uri": f"file://{data}", "resolution": 64, "validation_fraction": 0.0},
        "training": {"max_steps": 1, "precision": "bf16"},
    }
    of_folder = packs.ready(packs.style("folder", base_model={"uri": f"file://{folder}"}, **fields)).base
    style = packs.style("file", base_model={"uri": f"file://{file}", "parts": parts}, **fields)
    found = packs.ready(style).base
    assert (found.family, found.digest, found.denoiser_modules) == (family, of_folder.digest, of_folder.denoiser_modules)
    assert single_file.is_single(found.uri)
    assert packs.train(style).endings == {style.job: "succeeded"}
    [loss] = packs.losses("file")
    assert 0 < loss < 100
