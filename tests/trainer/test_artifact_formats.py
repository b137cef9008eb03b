"""Every format that a spec asks for holds the same adapter; what a format cannot hold is refused before anything trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import PeftModel
from torch import Tensor

from examples.demo import BASE_MODEL
from lorafleet.spec import parse
from tests.lorafleet.specs import with_fields
from tests.lorafleet.test_objective_rules import complaints
from tests.trainer.packs import Packs
from tests.trainer.test_artifact_files import committed
from trainer.adapters.files.reading import read_path
from trainer.adapters.files.updates import update
from trainer.group import Group

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
ALL = ["diffusers", "kohya", "peft", "comfyui"]


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path, Group(rank=0, world_size=1))


def weights(method: str = "lora") -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(1)
    found = {"lora_A.weight": torch.randn(2, 192, generator=draws), "lora_B.weight": torch.randn(192, 2, generator=draws)}
    more = {"lora_magnitude_vector": torch.rand(192, generator=draws)} if method == "dora" else {}
    return {f"unet.{LAYER}.{end}": tensor for end, tensor in {**found, **more}.items()}


def artifact(packs: Packs, method: str = "lora", **adapter: Any) -> Path:
    fields = {"method": method, "rank": 2, "alpha": 3.0, "target_modules": ["attn1.to_q"], **adapter}
    return committed(packs, "fox", weights(method), adapter=fields, output={"formats": ALL, "precision": "fp32", "name": "fox"})


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_all_formats_hold_the_same_update(packs: Packs, method: str):
    folder = artifact(packs, method)
    names = {"diffusers": "fox-pytorch_lora_weights.safetensors", "kohya": "fox.safetensors", "peft": "fox-peft"}
    found = {each: read_path(folder / name, "sd1") for each, name in {**names, "comfyui": "fox-comfyui.safetensors"}.items()}
    a, b = weights(method).values()
    exact = (3 / 2 if method == "lora" else 3 / 2**0.5) * b.double() @ a.double()
    for each, adapter in found.items():
        assert adapter.format == each
        (module,) = adapter.modules
        assert module.paths == (f"unet.{LAYER}",)
        assert torch.allclose(update(module), exact, atol=1e-5), each
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"fox-peft/adapter_config.json", "fox-peft/adapter_model.safetensors", "fox-comfyui.safetensors"} <= files.keys()


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_peft_loads_its_folder_onto_the_model(packs: Packs, method: str):
    folder = artifact(packs, method)
    model: Any = PeftModel.from_pretrained(UNet2DConditionModel.from_pretrained(BASE_MODEL / "unet"), folder / "fox-peft")  # pyright: ignore[reportArgumentType]
    layer = model.get_submodule(f"base_model.model.{LAYER}")
    a, b, *magnitude = weights(method).values()
    whole = layer.base_layer.weight + 1.5 * b @ a
    merged = whole * (magnitude[0] / whole.norm(dim=1))[:, None] if magnitude else whole
    x = torch.randn(5, 192)
    assert torch.allclose(layer(x), x @ merged.T, atol=1e-4)


@pytest.mark.parametrize("method", ["loha", "lokr"])
def test_a_method_that_peft_has_not_is_refused_for_its_folder(method: str):
    found = complaints(adapter={"method": method}, output={"formats": ["kohya", "peft"]})
    assert list(found) == ["output.formats"]
    assert f'PEFT has no "{method}"' in found["output.formats"]


def test_a_family_whose_names_are_not_known_is_refused_for_those_formats(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_EXTENSIONS", "tests.trainer.toys")
    base = {"uri": "file:///base", "family": "toy"}
    for name in ("peft", "comfyui"):
        assert "is not known" in complaints(base_model=base, output={"formats": [name]})["output.formats"]
    parse(with_fields(base_model=base, output={"formats": ["kohya", "diffusers"]}))
