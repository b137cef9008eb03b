"""Beginnings that are subtracted: nothing at step 0 in any bit, PEFT's PiSSA then, and files that are plain LoRA on the plain base."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.errors import RunFailed
from tests.trainer.adapters.test_adapters import model_of, net
from tests.trainer.adapters.test_tlora import denoiser
from trainer.adapters import beginnings
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind, scaling
from trainer.adapters.model import PackModel
from trainer.keyed import Key, Purpose

LINEAR, EVERY = ("linear", "out"), ("conv", "pointwise", "linear", "out")
T_LORA: dict[str, Any] = {"method": "tlora", "initialization": "orthogonal", "min_rank": 1}


def asked(*targets: str, **fields: Any) -> spec.AdapterSpec:
    return spec.AdapterSpec(**{"rank": 2, "alpha": 3.0, "initialization": "pissa", "target_modules": targets, **fields})


def banked(adapter: spec.AdapterSpec, unet: nn.Module | None = None, *, num_styles: int = 1) -> tuple[PackModel, Bank, Tensor]:
    """A bank of styles that begin alike."""
    model = model_of(net().float() if unet is None else unet)
    kind = Kind.of(adapter, "adamw")
    bank, layers = model.add_bank(kind, num_styles, batch_invariant=False), model.layers_of(kind)
    row = bank.layout.row(beginnings.found(bank.layout, layers, adapter, Key(0, "s")))
    for _ in range(num_styles):
        bank.add_style(row, scaling(adapter), row)
    return model, bank, row


def change(bank: Bank, row: Tensor, slot: int = 0) -> Tensor:
    """As if it had trained."""
    moved = row + 0.1 * torch.randn(row.shape, generator=torch.Generator().manual_seed(slot))
    with torch.no_grad():
        bank.flat[slot] = moved
    return moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", [{}, {**T_LORA, "alpha": 2.0}])
def test_step_0_is_the_base_in_every_bit_and_learns(fields: dict[str, Any], dtype: torch.dtype):
    unet = denoiser().float() if fields else net().float()
    model, bank, row = banked(asked("linear", "conv", **fields), unet)
    x = torch.randn(2, 4 if fields else 3, 8, 8)
    told = (torch.tensor([10, 700]),) if fields else ()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        plain = unet(x, *told)
        with model.serving([ActiveSlots(bank, [0])]):
            out = model.get_submodule("unet")(x, *told)
    assert row.any()
    assert torch.equal(out, plain)
    out.float().pow(2).sum().backward()
    assert bank.flat.grad is not None
    assert all(gradient.any() for _, gradient in bank.layout.split(bank.flat.grad))


def test_stacked_it_computes_and_learns_what_pefts_pissa_does():
    adapter = asked(*LINEAR)
    model, bank, row = banked(adapter, num_styles=3)
    rows, x = [change(bank, row, slot) for slot in range(3)], torch.randn(6, 3, 8, 8)
    with model.serving([ActiveSlots(bank, [0, 1, 2], 0, 2)]):
        out = model.get_submodule("unet")(x)
    out.pow(2).sum().backward()
    assert bank.flat.grad is not None
    for slot, moved in enumerate(rows):
        config = LoraConfig(r=2, lora_alpha=3, target_modules=list(LINEAR), init_lora_weights="pissa")
        theirs, named = inject_adapter_in_model(config, net().float()), bank.layout.named(moved - row)
        trained = {f"unet.{name.replace('.default', '')}": each for name, each in theirs.named_parameters() if "lora_" in name}
        assert all(torch.allclose(each, bank.layout.named(row)[name], atol=1e-6) for name, each in trained.items()), "begins alike"
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter += named[name]
        expected = theirs(x[2 * slot : 2 * slot + 2])
        expected.pow(2).sum().backward()
        assert torch.allclose(out[2 * slot : 2 * slot + 2], expected, atol=1e-5)
        gradient = bank.layout.named(bank.flat.grad[slot])
        for name, parameter in trained.items():
            assert parameter.grad is not None
            assert torch.allclose(gradient[name], parameter.grad, rtol=1e-5, atol=1e-5), name


def test_what_is_subtracted_is_the_nearest_of_the_rank_also_of_a_convolution():
    """Eckart and Young 1936: no matrix of rank 2 is nearer to the weight."""
    adapter = asked(*EVERY)
    _, bank, row = banked(adapter)
    named = bank.layout.named(row)
    for target in EVERY:
        weight = net().float().get_submodule(target).weight.flatten(1)
        a, b = (named[f"unet.{target}.lora_{role}.weight"].flatten(1) for role in "AB")
        left = torch.linalg.svdvals(weight)[2:]
        assert torch.allclose((weight - scaling(adapter) * b @ a).norm(), left.norm(), atol=1e-5)
        assert torch.allclose(b.norm(dim=0), a.norm(dim=1), atol=1e-5), "shared out evenly"


def test_iterations_find_nearly_the_same_whatever_else_is_drawn():
    """Of a layer of 200 x 300 whose singular values fall slowly."""
    layer = nn.Linear(300, 200)
    left, right = (torch.linalg.qr(torch.randn(size, 200))[0] for size in (200, 300))
    with torch.no_grad():
        layer.weight.copy_(left * (1.0 / torch.arange(1, 201)) @ right.T)
    names = ("pissa", "pissa_niter_16", "pissa_niter_16")
    held = [nn.ModuleDict({"linear": layer}) for _ in names]
    exact, nearly, again = [banked(asked("linear", rank=8, initialization=name), unet)[2] for name, unet in zip(names, held, strict=True)]
    assert torch.equal(nearly, again)
    assert not torch.equal(nearly, exact)
    products = []
    for row in (exact, nearly):
        a, b = row[: 8 * 300].view(8, 300), row[8 * 300 :].view(200, 8)
        products.append(b @ a)
    assert torch.allclose(*products, atol=1e-4)


def test_t_lora_begins_with_the_last_singular_vectors_of_a_drawn_matrix_and_masks_both_sides():
    """Soboleva et al. 2025: W x + s (B M A - B0 M A0) x, with M of the first ranks."""
    adapter = asked("linear", **{**T_LORA, "alpha": 2.0, "rank": 4})
    model, bank, row = banked(adapter, denoiser().float())
    a0, b0 = (bank.layout.named(row)[f"unet.linear.lora_{role}.weight"] for role in "AB")
    drawn = torch.from_numpy(Key(0, "s").generator(Purpose.INIT, "unet.linear").standard_normal((5, 6))).float() / 4
    assert torch.allclose(a0 @ a0.mT, torch.eye(4), atol=1e-6), "its rows are orthogonal"
    assert torch.allclose(b0.norm(dim=0), torch.linalg.svdvals(drawn)[-4:], atol=1e-6)
    assert torch.equal(banked(adapter, denoiser().float())[2], row), "the key's alone"
    named = bank.layout.named(change(bank, row))
    a, b = (named[f"unet.linear.lora_{role}.weight"] for role in "AB")
    x = torch.randn(1, 4, 8, 8)
    with model.serving([ActiveSlots(bank, [0])]):
        out = model.get_submodule("unet")(x, torch.tensor([500]))
    base: Any = denoiser().float()
    h, kept = base.conv(x).flatten(2).mT, 2  # floor((1 - 500 / 1000) (4 - 1)) + 1
    update = (h @ a[:kept].mT) @ b[:, :kept].mT - (h @ a0[:kept].mT) @ b0[:, :kept].mT
    assert torch.allclose(out, base.linear(h) + 0.5 * update, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"alpha": None}, {"overrides": [{"pattern": "out", "rank": 1}, {"pattern": "conv", "alpha": 5.0}]}])
def test_what_is_written_is_a_lora_of_twice_the_rank_and_of_the_same_update(fields: dict[str, Any]):
    adapter = asked(*EVERY, **fields)
    _, bank, row = banked(adapter)
    trained, began = bank.layout.named(change(bank, row)), bank.layout.named(row)
    written, plain = beginnings.named_plainly(trained, began), beginnings.plain(adapter)
    assert (plain.rank, plain.initialization, plain.method) == (4, "kaiming", "lora")
    for target in EVERY:
        names = [f"unet.{target}.lora_{role}.weight" for role in "AB"]
        (a, b), (a0, b0), (wide_a, wide_b) = ([each[name].flatten(1) for name in names] for each in (trained, began, written))
        assert len(wide_a) == plain.at(f"unet.{target}").rank == 2 * adapter.at(f"unet.{target}").rank
        update = scaling(adapter.at(f"unet.{target}")) * (b @ a - b0 @ a0)
        assert torch.allclose(scaling(plain.at(f"unet.{target}")) * wide_b @ wide_a, update, atol=1e-6)


def test_a_rank_that_a_layer_has_not_is_told_by_its_name():
    with pytest.raises(RunFailed, match=r"3 singular values, adapter.rank, and unet.out has 2; use a smaller rank") as failed:
        banked(asked(*EVERY, rank=3))
    assert failed.value.reason == "RANK_TOO_LARGE"
    banked(asked(*EVERY, rank=3, overrides=[{"pattern": "out", "rank": 2}]))


@pytest.mark.parametrize("method", ["lora", "tlora"])
def test_others_have_nothing_to_subtract(method: str):
    plain = spec.AdapterSpec(method=method, rank=2, target_modules=LINEAR)  # pyright: ignore[reportArgumentType]
    assert beginnings.plain(plain) is plain
    model = model_of(net())
    bank = model.add_bank(Kind.of(plain, "adamw"), 1, batch_invariant=False)
    assert bank.began is None
    assert beginnings.found(bank.layout, model.layers_of(bank.kind), plain, Key(0, "s")) == {}
