"""Files of LyCORIS' methods, read by the arithmetic that their readers publish, are the weights that were trained."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog import METHODS as FACTS
from lorafleet.catalog.part import Layers
from trainer.adapters.files import reading
from trainer.adapters.files.sources import Source
from trainer.adapters.formats.kohya import kohya_file
from trainer.adapters.layout import scaling
from trainer.adapters.methods import METHODS

LAYERS: dict[str, nn.Linear | nn.Conv2d] = {"attn.to_q": nn.Linear(12, 18), "conv1": nn.Conv2d(6, 8, 3), "proj_in": nn.Conv2d(8, 10, 1)}
ASKED: list[dict[str, Any]] = [
    {"method": "loha", "rank": 3},
    {"method": "lokr", "rank": 1},
    {"method": "lokr", "rank": 300},
    {"method": "lokr", "rank": 1, "factor": 2},
]


def asked_for(adapter: dict[str, Any], family: str = "sd1") -> spec.Spec:
    fields = {"alpha": 2.5, "target_modules": list(LAYERS), **adapter}
    return spec.parse({"base_model": {"uri": "file:///b", "family": family}, "dataset": {"uri": "file:///d"}, "adapter": fields})


def weights_of(asked: spec.Spec) -> dict[str, Tensor]:
    """Of an adapter, random, by canonical name."""
    facts, draws = FACTS.get(asked.adapter.method).cut_by(asked.adapter.factor), torch.Generator().manual_seed(3)
    return {
        f"{asked.family.denoiser.name}.{module}.{facts.names[role]}": torch.randn(shape, generator=draws)
        for module, layer in LAYERS.items()
        for role, shape in facts.tensors(asked.adapter.rank, tuple(layer.weight.shape)).items()
    }


def of_module(tensors: Mapping[str, Tensor], module: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{module}."): tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")}


def as_read(weight: Tensor, file: Mapping[str, Tensor]) -> Tensor:
    """As ComfyUI's weight adapters do it: alpha over the rank that a tensor's shape tells, and 1 where none does."""
    if "hada_w1_a" in file:
        update = (file["hada_w1_a"] @ file["hada_w1_b"]) * (file["hada_w2_a"] @ file["hada_w2_b"])
        scale = float(file["alpha"]) / len(file["hada_w1_b"])
    else:
        w1, whole = file["lokr_w1"], file.get("lokr_w2")
        w2 = whole if whole is not None else file["lokr_w2_a"] @ file["lokr_w2_b"]
        scale = 1.0 if whole is not None else float(file["alpha"]) / len(file["lokr_w2_b"])
        update = torch.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)), w2)
    return weight + scale * update.reshape(weight.shape)


@pytest.mark.parametrize("adapter", ASKED, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_kohya_file_is_read_as_what_was_trained(adapter: dict[str, Any], precision: str):
    asked = asked_for(adapter)
    weights = weights_of(asked)
    file = load(kohya_file(weights, asked, {}, precision))
    roles = {end: role for role, end in FACTS.get(asked.adapter.method).names.items()}
    for module, layer in LAYERS.items():
        mine = {roles[end]: tensor for end, tensor in of_module(weights, f"unet.{module}").items()}
        trained = METHODS.get(asked.adapter.method).merged(layer.weight.detach(), mine, scaling(asked.adapter))
        theirs = {name: tensor.float() for name, tensor in of_module(file, f"lora_unet_{module.replace('.', '_')}").items()}
        read = as_read(layer.weight.detach(), theirs)
        update = (trained - layer.weight.detach()).norm()
        assert float((read - trained).norm() / update) < (1e-5 if precision == "fp32" else 0.02), module
        assert math.isclose(float(theirs["alpha"]), asked.adapter.rank, rel_tol=0.01)


def test_a_kohya_file_of_lokr_says_how_sides_were_cut():
    text = kohya_file(weights_of(asked_for(ASKED[3])), asked_for(ASKED[3]), {}).decode(errors="replace")
    assert '"ss_network_module":"lycoris.kohya"' in text
    assert r"\"algo\": \"lokr\", \"factor\": \"2\"" in text


def arguments_of(**adapter: Any) -> dict[str, str]:
    asked = asked_for(adapter)
    data = kohya_file(weights_of(asked), asked, {})
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["ss_network_args"])


@pytest.mark.parametrize("method", ["lora", "dora", "loha", "lokr"])
def test_a_kohya_file_says_that_convolutions_are_trained(method: str, monkeypatch: pytest.MonkeyPatch):
    """Those of 1 x 1 are linear layers to readers; of several ranks none could be said."""
    found = arguments_of(method=method, rank=3)
    assert (found["conv_dim"], found["conv_alpha"]) == ("3", "2.5")
    own = arguments_of(method=method, rank=3, overrides=[{"pattern": "conv1", "alpha": 1.5}])
    assert (own["conv_dim"], own["conv_alpha"]) == ("3", "1.5")
    monkeypatch.delitem(LAYERS, "conv1")
    assert not {"conv_dim", "conv_alpha"}.intersection(arguments_of(method=method, rank=3))
    monkeypatch.setitem(LAYERS, "conv1", nn.Conv2d(6, 8, 3))
    monkeypatch.setitem(LAYERS, "conv2", nn.Conv2d(6, 8, 3))
    several = arguments_of(method=method, rank=3, overrides=[{"pattern": "conv2", "alpha": 1.5}])
    assert not {"conv_dim", "conv_alpha"}.intersection(several)


def test_loha_of_layers_that_are_one_in_the_file_is_theirs_beside_each_other():
    """Whatever they learned, and also where one of them has none."""
    asked = asked_for({"method": "loha", "rank": 2, "target_modules": ["to_q", "to_v"]}, "flux")
    facts, draws = FACTS.get("loha"), torch.Generator().manual_seed(4)
    block = "transformer_blocks.0.attn"
    weights = {
        f"transformer.{block}.{module}.{facts.names[role]}": torch.randn(shape, generator=draws)
        for module in ("to_q", "to_v")
        for role, shape in facts.tensors(2, (6, 4)).items()
    }
    parts = [f"{block}.{module}" for module in ("to_q", "to_k", "to_v")]
    layers = Layers(dict.fromkeys(parts, "double_blocks.0.img_attn.qkv"), dict.fromkeys(parts, 6))
    file = load(kohya_file(weights, asked, {}, "fp32", layers=layers))
    read = as_read(torch.zeros(18, 4), of_module(file, "lora_unet_double_blocks_0_img_attn_qkv"))
    for module, rows in (("to_q", slice(0, 6)), ("to_v", slice(12, 18))):
        mine = {role: weights[f"transformer.{block}.{module}.{end}"] for role, end in facts.names.items()}
        trained = METHODS.get("loha").merged(torch.zeros(6, 4), mine, scaling(asked.adapter))
        assert torch.allclose(read[rows], trained, atol=1e-5), module
    assert not read[6:12].any()


def test_lokr_of_layers_that_are_one_in_the_file_is_named_apart():
    """By LyCORIS' names of diffusers' transformer, which ComfyUI and the reader here know; a layer of its own has kohya's."""
    asked = asked_for({"method": "lokr", "rank": 1, "target_modules": ["to_q", "to_k", "norm_out.linear", "ff.net.2"]}, "flux")
    facts, draws = FACTS.get("lokr"), torch.Generator().manual_seed(4)
    block = "transformer_blocks.0"
    trained = [f"{block}.attn.to_q", f"{block}.attn.to_k", "norm_out.linear", f"{block}.ff.net.2"]
    weights = {
        f"transformer.{module}.{facts.names[role]}": torch.randn(shape, generator=draws)
        for module in trained
        for role, shape in facts.tensors(1, (16, 8)).items()
    }
    fused = dict.fromkeys((f"{block}.attn.{name}" for name in ("to_q", "to_k", "to_v")), "double_blocks.0.img_attn.qkv")
    layers = Layers({**fused, f"{block}.ff.net.2": "double_blocks.0.img_mlp.2"}, dict.fromkeys([*fused, *trained], 16))
    data = kohya_file(weights, asked, {}, "fp32", layers=layers)
    modules = {name.rpartition(".")[0] for name in load(data)}
    assert modules == {
        "lycoris_transformer_blocks_0_attn_to_q",
        "lycoris_transformer_blocks_0_attn_to_k",
        "lycoris_norm_out_linear",
        "lora_unet_double_blocks_0_img_mlp_2",
    }
    file = load(data)
    for module, name in (("attn.to_q", "lycoris_transformer_blocks_0_attn_to_q"), ("ff.net.2", "lora_unet_double_blocks_0_img_mlp_2")):
        mine = {role: weights[f"transformer.{block}.{module}.{end}"] for role, end in facts.names.items() if role != "w2"}
        expected = METHODS.get("lokr").merged(torch.zeros(16, 8), mine, scaling(asked.adapter))
        assert torch.allclose(as_read(torch.zeros(16, 8), of_module(file, name)), expected, atol=1e-5)
    read = reading.read([Source("a file", data)], "flux")
    assert {path for module in read.modules for path in module.paths} >= {f"transformer.{module}" for module in trained[:2]}
