"""OFT against the arithmetic that LyCORIS publishes for diag-oft: the weight with its blocks of outputs turned, in a plain layer."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog import METHODS as FACTS
from lorafleet.catalog.part import Layers
from tests.trainer.adapters.test_adapters import filled_bank, model_of
from tests.trainer.adapters.test_lycoris import TARGETS, is_close, net
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.dropout import keyed_dropout
from trainer.adapters.formats.kohya import kohya_file
from trainer.adapters.methods import METHODS

OFT = METHODS.get("oft")
DRAWS = torch.Generator().manual_seed(0)


def adapter(rank: int, **fields: Any) -> spec.AdapterSpec:
    return spec.AdapterSpec(method="oft", rank=rank, target_modules=TARGETS, **fields)


def turned(weight: Tensor, blocks: Tensor, constraint: float = 0.0) -> Tensor:
    """LyCORIS' make_weight: R = (I + Q) (I - Q)^-1, Q = S - S^T held to a norm, "k n m, k n ... -> k m ..."."""
    q = blocks - blocks.mT
    if constraint and float(q.norm()) > constraint:
        q = q * constraint / q.norm()
    identity = torch.eye(blocks.shape[1], dtype=blocks.dtype)
    r = (identity + q) @ (identity - q).inverse()
    parts = weight.reshape(*blocks.shape[:2], *weight.shape[1:])
    return torch.einsum("knm,kn...->km...", r, parts).reshape(weight.shape)


def published(x: Tensor, blocks: dict[str, Tensor]) -> Tensor:
    """The net of test_lycoris with turned weights; biases stay."""
    plain: Any = net()
    weights = {name: turned(plain.get_submodule(name).weight, blocks[name]) for name in TARGETS}
    h = F.conv2d(x, weights["conv"], plain.conv.bias, stride=2, padding=1).relu()
    h = F.conv2d(h, weights["pointwise"]).flatten(2).mT
    return F.linear(F.linear(h, weights["linear"], plain.linear.bias).relu(), weights["out"])


@pytest.mark.parametrize("rank", [2, 3, 8])
@pytest.mark.parametrize("rows_each", [1, 3])
def test_stacked_adapters_compute_what_is_published(rank: int, rows_each: int):
    model = model_of(net()).double()
    bank, rows = filled_bank(model, [adapter(rank)] * 3)
    x = torch.randn(3 * rows_each + 1, 6, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0, 1, 2], 0, rows_each)]):
        out = model.get_submodule("unet")(x)
    out.pow(2).sum().backward()
    assert is_close(out[-1:], net()(x[-1:]))
    assert bank.flat.grad is not None
    for slot, row in enumerate(rows):
        blocks = {name: bank.layout.named(row)[f"unet.{name}.oft_blocks"].requires_grad_() for name in TARGETS}
        mine = slice(slot * rows_each, (slot + 1) * rows_each)
        expected = published(x[mine], blocks)
        expected.pow(2).sum().backward()
        assert is_close(out[mine], expected)
        gradient = bank.layout.named(bank.flat.grad[slot])
        for name in TARGETS:
            theirs = blocks[name].grad
            assert theirs is not None
            assert is_close(gradient[f"unet.{name}.oft_blocks"], theirs), name


@pytest.mark.parametrize("layer", [nn.Linear(6, 12), nn.Conv2d(4, 12, 3)], ids=["linear", "convolution"])
def test_merged_weights_are_the_published_ones(layer: nn.Linear | nn.Conv2d):
    blocks = torch.randn(4, 3, 3, generator=DRAWS)
    assert torch.allclose(OFT.merged(layer.weight.detach(), {"blocks": blocks}, 1.0), turned(layer.weight.detach(), blocks), atol=1e-5)


def test_what_dropout_takes_from_inputs_is_not_turned():
    """An adapter's dropout changes what it adds, and nothing of the frozen layer."""
    asked = spec.AdapterSpec(method="oft", rank=3, dropout=0.5, target_modules=("linear",))
    model = model_of(net()).double()
    bank, (row,) = filled_bank(model, [asked])
    layer: Any = model.get_submodule("unet.linear")
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0], 0, 2, [7, 8])]):
        out = layer(x)
    weight = layer.weight
    update = turned(weight, bank.layout.named(row)["unet.linear.oft_blocks"]) - weight
    seen = keyed_dropout(x, [7, 8], rate=0.5, layer=layer.number).double()
    assert is_close(out, F.linear(x, weight, layer.bias) + F.linear(seen, update))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_readers_hold_it_to_no_norm(precision: str):
    """ComfyUI and LyCORIS take alpha for a norm that Q is held to, or 0 for none; A1111 holds it to that in any case."""
    asked = spec.parse({"base_model": {"uri": "file:///b", "family": "sd1"}, "dataset": {"uri": "file:///d"}, "adapter": {"method": "oft"}})
    for blocks in (torch.zeros(4, 3, 3), 1e-4 * torch.randn(4, 3, 3, generator=DRAWS), 9 * torch.randn(4, 3, 3, generator=DRAWS)):
        file = load(kohya_file({"unet.to_q.oft_blocks": blocks}, asked, {}, precision))
        read, alpha = file["lora_unet_to_q.oft_blocks"].float(), float(file["lora_unet_to_q.alpha"])
        assert torch.equal(read, blocks.to(file["lora_unet_to_q.oft_blocks"].dtype).float())
        assert alpha > (read - read.mT).norm(), "no reader changes Q"


@pytest.mark.parametrize(
    "outputs", [(12, 12, 12), (12, 8, 12), (12, 9, 12)], ids=["alike", "of other sides", "that divide into nothing alike"]
)
def test_of_layers_that_are_one_in_the_file_it_is_theirs_one_after_another(outputs: tuple[int, ...]):
    parts = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
    layers = Layers(dict.fromkeys(parts, "double_blocks.0.img_attn.qkv"), dict(zip(parts, outputs, strict=True)))
    asked = spec.parse(
        {
            "base_model": {"uri": "file:///b", "family": "flux"},
            "dataset": {"uri": "file:///d"},
            "adapter": {"method": "oft", "rank": 4, "target_modules": ["to_q", "to_k"]},
        }
    )
    learned = {
        part: torch.randn(FACTS.get("oft").tensors(4, (number, 6))["blocks"], generator=DRAWS)
        for part, number in zip(parts[:2], outputs[:2], strict=True)
    }
    file = load(
        kohya_file({f"transformer.{part}.oft_blocks": blocks for part, blocks in learned.items()}, asked, {}, "fp32", layers=layers)
    )
    weight = torch.randn(sum(outputs), 6, generator=DRAWS)
    read = turned(weight, file["lora_unet_double_blocks_0_img_attn_qkv.oft_blocks"])
    own = weight.split(list(outputs))
    expected = torch.cat([turned(own[0], learned[parts[0]]), turned(own[1], learned[parts[1]]), own[2]])
    assert torch.allclose(read, expected, atol=1e-4)


@pytest.mark.parametrize("num_outputs", [16, 12], ids=["blocks stay whole", "a block would part"])
def test_outputs_in_another_order_are_turned_as_they_were(num_outputs: int):
    blocks = torch.randn(num_outputs // 4, 4, 4, generator=DRAWS)
    order = torch.arange(num_outputs).roll(num_outputs // 2)
    weight = torch.randn(num_outputs, 5, generator=DRAWS)
    moved = OFT.with_outputs({"blocks": blocks}, order)["blocks"]
    assert torch.allclose(turned(weight[order], moved), turned(weight, blocks)[order], atol=1e-5)
