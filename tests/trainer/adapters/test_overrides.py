"""Layers with a rank, alpha, dropout and rate of their own compute, learn and are written as PEFT and torch have them."""

import json
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog.part import Layers
from lorafleet.spec import AdapterSpec, Spec
from tests.trainer.adapters.test_adapters import TARGETS, model_of, net
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.formats.diffusers import diffusers_file
from trainer.adapters.formats.kohya import kohya_file
from trainer.adapters.formats.tensors import usable_precision
from trainer.adapters.layout import Kind
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.schedule import Rates
from trainer.optimizers.stacked import StackedOptimizer

OWN = [{"pattern": "conv", "rank": 3, "alpha": 5.0}, {"pattern": "linear", "rank": 1, "learning_rate": 1e-2, "lr_scheduler": "linear"}]
STEPS = 20


def asked_for(overrides: list[dict[str, Any]] = OWN, family: str = "sd1", targets: tuple[str, ...] = TARGETS, **training: Any) -> Spec:
    adapter = {"rank": 2, "alpha": 4.0, "target_modules": list(targets), "overrides": overrides}
    base, data = {"uri": "file:///b", "family": family}, {"uri": "file:///d"}
    return spec.parse({"base_model": base, "dataset": data, "adapter": adapter, "training": {"max_steps": STEPS, **training}})


def bank_of(*asked: Spec, dtype: torch.dtype = torch.float64) -> tuple[Any, Bank]:
    model = model_of(net()).to(dtype)
    bank = model.add_bank(Kind.of_spec(asked[0]), len(asked), batch_invariant=False).to(dtype)
    for number, each in enumerate(asked):
        draws = torch.Generator().manual_seed(number)
        bank.add_style(torch.randn(bank.layout.size, generator=draws, dtype=dtype), bank.scaling_of(each.adapter).to(dtype))
    return model, bank


def pefts(asked: AdapterSpec, named: dict[str, Tensor]) -> nn.Module:
    layers = {name: asked.at(f"unet.{name}") for name in TARGETS}
    config = LoraConfig(
        r=asked.rank,
        lora_alpha=4,
        target_modules=list(TARGETS),
        rank_pattern={name: layer.rank for name, layer in layers.items()},
        alpha_pattern={name: layer.alpha for name, layer in layers.items()},
    )
    model = inject_adapter_in_model(config, net()).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(named[f"unet.{name.replace('.default', '')}"])
    return model


def test_ranks_and_alphas_are_pefts_patterns():
    """Of two styles of one kind, whose alphas differ."""
    styles = [asked_for(), asked_for([{**OWN[0], "alpha": 1.0}, {**OWN[1], "learning_rate": 1e-5}])]
    assert Kind.of_spec(styles[0]) == Kind.of_spec(styles[1])
    model, bank = bank_of(*styles)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0, 1], 0, 2)]):
        out = model.get_submodule("unet")(x)
    out.pow(2).sum().backward()
    for slot, each in enumerate(styles):
        theirs = pefts(each.adapter, bank.layout.named(bank.flat[slot].detach()))
        expected = theirs(x[2 * slot : 2 * slot + 2])
        expected.pow(2).sum().backward()
        assert torch.allclose(out[2 * slot : 2 * slot + 2], expected)
        gradient = bank.layout.named(bank.flat.grad[slot])
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                assert torch.allclose(gradient[f"unet.{name.replace('.default', '')}"], parameter.grad), name


@pytest.mark.parametrize("ratio", [None, 4.0])
def test_rates_are_those_of_torchs_groups(ratio: float | None):
    more = {"lora_plus_ratio": ratio} if ratio else {}
    asked = asked_for(learning_rate=1e-3, lr_scheduler="constant", weight_decay=0.1, max_grad_norm=0.0, **more)
    _, bank = bank_of(asked, dtype=torch.float32)
    optimizer, rates = StackedOptimizer([bank], clips=True), Rates.of(asked)
    theirs = {name: nn.Parameter(tensor.clone()) for name, tensor in bank.layout.named(bank.flat[0].detach()).items()}
    alone = torch.optim.AdamW([{"params": [each], "name": name} for name, each in theirs.items()], weight_decay=0.1)
    for step in range(STEPS):
        bank.flat.grad = torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(step))
        optimizer.param_groups[0]["updates"] = [StyleUpdate(asked.training, 1e-3, step, rates=rates.at(step))]
        optimizer.step()
        for name, gradient in bank.layout.named(bank.flat.grad[0]).items():
            theirs[name].grad = gradient
        for group in alone.param_groups:
            side = ratio or 1 if "lora_B" in group["name"] else 1
            group["lr"] = side * (1e-2 * (1 - step / STEPS) if "linear" in group["name"] else 1e-3)
        alone.step()
    for name, tensor in bank.layout.named(bank.flat[0].detach()).items():
        torch.testing.assert_close(tensor, theirs[name].detach(), rtol=1e-5, atol=1e-6)


def test_a_schedule_of_its_own_has_nothing_of_the_specs():
    asked = asked_for([{"pattern": "linear", "lr_scheduler": "polynomial"}], lr_scheduler="cosine_with_restarts", lr_cycles=3)
    assert [each.lr_cycles for each in Rates.of(asked).schedules] == [3, None]


def test_a_part_and_a_pattern_share_in_a_rate():
    asked = asked_for([{"part": "unet", "learning_rate": 5e-4}, {"pattern": "linear", "lr_scheduler": "constant"}])
    rates = Rates.of(asked).at(STEPS - 1)
    _, bank = bank_of(asked)
    assert {piece.module: rates[piece.group] for piece in bank.layout.pieces}["unet.linear"] == 5e-4
    assert {piece.module: rates[piece.group] for piece in bank.layout.pieces}["unet.out"] == pytest.approx(5e-4 * 0.00616, rel=1e-3)


def test_dropout_is_the_layers_own():
    asked = asked_for([{"pattern": "linear", "dropout": 0.5}])
    assert asked.adapter.drops
    model, bank = bank_of(asked)
    active = ActiveSlots(bank, [0], 0, 2, seeds=[1, 2])
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with model.serving([active]):
        dropped = model.get_submodule("unet")(x)
    assert [active.layers[f"unet.{name}"].dropout for name in TARGETS] == [0.0, 0.0, 0.5, 0.0]
    with model.serving([ActiveSlots(bank, [0], 0, 2)]):
        whole = model.get_submodule("unet")(x)
    assert not torch.allclose(dropped, whole)


def test_files_have_each_layers_rank_and_scale():
    asked = asked_for()
    _, bank = bank_of(asked, dtype=torch.float32)
    weights = bank.layout.named(bank.flat[0].detach())
    kohya = load(kohya_file(weights, asked, {}))
    assert [float(kohya[f"lora_unet_{name}.alpha"]) for name in TARGETS] == [4.0] * 4
    up = weights["unet.conv.lora_B.weight"]
    assert torch.allclose(kohya["lora_unet_conv.lora_up.weight"] * 4.0, up * 5.0), "alpha 5, as readers find it who know one alpha alone"
    assert [len(kohya[f"lora_unet_{name}.lora_down.weight"]) for name in TARGETS] == [3, 2, 1, 2]
    data = diffusers_file(weights, asked)
    said = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["lora_adapter_metadata"])
    assert said["unet.r"] == said["unet.lora_alpha"] == 2
    assert said["unet.rank_pattern"] == said["unet.alpha_pattern"] == {"conv": 3, "linear": 1}
    assert torch.allclose(load(data)["unet.linear.lora_B.weight"], weights["unet.linear.lora_B.weight"] * 4)


def test_layers_that_are_one_in_a_file_may_differ_in_rank_and_alpha():
    asked = asked_for([{"pattern": "to_q", "rank": 3, "alpha": 1.0}], "flux", ("to_q", "to_v"))
    draws = torch.Generator().manual_seed(0)
    block = "transformer_blocks.0.attn"
    weights: dict[str, Tensor] = {}
    for module, rank in (("to_q", 3), ("to_v", 2)):
        weights[f"transformer.{block}.{module}.lora_A.weight"] = torch.randn(rank, 4, generator=draws)
        weights[f"transformer.{block}.{module}.lora_B.weight"] = torch.randn(6, rank, generator=draws)
    parts = [f"{block}.{module}" for module in ("to_q", "to_k", "to_v")]
    layers = Layers(dict.fromkeys(parts, "double_blocks.0.img_attn.qkv"), dict.fromkeys(parts, 6))
    file = load(kohya_file(weights, asked, {}, layers=layers))
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    down, up, alpha = (file[f"{name}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
    update = up @ down * (float(alpha) / len(down))
    for module, rows, own in (("to_q", slice(0, 6), 1 / 3), ("to_v", slice(12, 18), 2.0)):
        a, b = (weights[f"transformer.{block}.{module}.lora_{side}.weight"] for side in "AB")
        assert torch.allclose(update[rows], own * b @ a, atol=1e-5), module
    assert not update[6:12].any()


def test_a_layers_own_alpha_may_lead_beyond_half_precision():
    asked = asked_for([{"pattern": "linear", "alpha": 1e6}])
    _, bank = bank_of(asked, dtype=torch.float32)
    weights = bank.layout.named(bank.flat[0].detach())
    assert usable_precision(weights, asked.adapter, "fp16") == "fp32"
    assert usable_precision(weights, asked_for().adapter, "fp16") == "fp16"
