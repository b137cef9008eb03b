"""LyCORIS' methods against PEFT's layers of them, one by one: same outputs, gradients and merged weights."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, PeftConfig, inject_adapter_in_model
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog.method import two_factors
from tests.trainer.adapters.test_adapters import filled_bank, model_of, pefts
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.layout import Kind, initial_row, scaling
from trainer.adapters.methods import METHODS
from trainer.keyed import Key

TARGETS = ("conv", "pointwise", "linear", "out")


class Net(nn.Module):
    """Every kind of layer that an adapter is put on, of sides that divide in several ways."""

    def __init__(self, *sides: int) -> None:
        super().__init__()
        first, second, third, fourth, last = sides or (6, 12, 8, 18, 7)
        self.conv = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(second, third, 1, bias=False)
        self.linear = nn.Linear(third, fourth)
        self.out = nn.Linear(fourth, last, bias=False)

    def forward(self, x: Tensor, timestep: Tensor | None = None) -> Tensor:
        h = self.pointwise(self.conv(x).relu()).flatten(2).mT  # (rows, tokens, 8)
        return self.out(self.linear(h).relu())


def net() -> Net:
    torch.manual_seed(0)
    return Net().double().requires_grad_(False)


def adapter(method: str, rank: int = 2, **fields: object) -> spec.AdapterSpec:
    return spec.AdapterSpec(method=method, rank=rank, alpha=3.0, target_modules=TARGETS, **fields)  # pyright: ignore[reportArgumentType]


def theirs_of(asked: spec.AdapterSpec, named: dict[str, Tensor]) -> nn.Module:
    """PEFT's model with the same adapter."""
    targets = [str(each) for each in TARGETS]
    config: PeftConfig = (
        LoHaConfig(r=asked.rank, alpha=3, target_modules=targets)
        if asked.method == "loha"
        else LoKrConfig(r=asked.rank, alpha=3, target_modules=targets, decompose_factor=asked.factor or -1)
    )
    model = inject_adapter_in_model(config, net()).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(named[f"unet.{name.replace('.default', '')}"].view_as(parameter))
    return model


METHODS_ASKED = [adapter("loha"), adapter("loha", 1), adapter("lokr", 1), adapter("lokr"), adapter("lokr", 1, factor=2)]


def is_close(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("asked", "rows_each"), itertools.product(METHODS_ASKED, [1, 3]), ids=str)
def test_stacked_adapters_compute_what_peft_computes_one_by_one(asked: spec.AdapterSpec, rows_each: int):
    model = model_of(net()).double()
    bank, rows = filled_bank(model, [asked] * 3)
    x = torch.randn(3 * rows_each + 1, 6, 8, 8, dtype=torch.float64)  # the last row is padding
    with model.serving([ActiveSlots(bank, [0, 1, 2], 0, rows_each)]):
        out = model.get_submodule("unet")(x)
    out.pow(2).sum().backward()
    assert is_close(out[-1:], net()(x[-1:]))
    assert bank.flat.grad is not None
    for slot, row in enumerate(rows):
        theirs, mine = theirs_of(asked, bank.layout.named(row)), slice(slot * rows_each, (slot + 1) * rows_each)
        expected = theirs(x[mine])
        expected.pow(2).sum().backward()
        assert is_close(out[mine], expected)
        gradient = bank.layout.named(bank.flat.grad[slot])
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                assert is_close(gradient[f"unet.{name.replace('.default', '')}"].view_as(parameter.grad), parameter.grad), name


@pytest.mark.parametrize("asked", METHODS_ASKED, ids=str)
def test_merged_weights_are_pefts(asked: spec.AdapterSpec):
    bank, (row,) = filled_bank(model_of(net()).double(), [asked])
    theirs = theirs_of(asked, bank.layout.named(row))
    for name in TARGETS:
        layer: Any = theirs.get_submodule(name)
        layer.merge()
        weight: Any = net().get_submodule(name).weight
        tensors = {piece.role: part[0] for piece, part in bank.layout.split(row[None]) if piece.module == f"unet.{name}"}
        assert is_close(METHODS.get(asked.method).merged(weight, tensors, scaling(asked)), layer.get_base_layer().weight), name


def test_methods_share_a_batch():
    company: Sequence[spec.AdapterSpec] = (adapter("loha"), adapter("lokr", 1), adapter("lokr", 3), adapter("lora", 3))
    model = model_of(net()).double()
    banks = [filled_bank(model, [each, each]) for each in company]
    x = torch.randn(4 * len(company) + 1, 6, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0, 1], 4 * number, 2) for number, (bank, _) in enumerate(banks)]):
        out = model.get_submodule("unet")(x)
    for number, (asked, (bank, rows)) in enumerate(zip(company, banks, strict=True)):
        for slot, row in enumerate(rows):
            mine, named = slice(4 * number + 2 * slot, 4 * number + 2 * slot + 2), bank.layout.named(row)
            theirs = pefts("lora", 3, named, net()) if asked.method == "lora" else theirs_of(asked, named)
            assert is_close(out[mine], theirs(x[mine]))
    assert is_close(out[-1:], net()(x[-1:]))


@pytest.mark.parametrize("asked", METHODS_ASKED, ids=str)
def test_a_new_adapter_is_the_base(asked: spec.AdapterSpec):
    model = model_of(net()).double()
    kind = Kind.of(asked, "adamw")
    bank = model.add_bank(kind, 1, batch_invariant=False).double()
    bank.add_style(initial_row(bank.layout, bank.method, Key(0, "s"), model.layers_of(kind)).double(), scaling(asked))
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0])]):
        out = model.get_submodule("unet")(x)
    assert torch.equal(out, net()(x))
    out.pow(2).sum().backward()
    assert bank.flat.grad is not None
    assert bank.flat.grad.abs().sum() > 0, "and it learns"


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    # LyCORIS' own table of examples, and sides that PEFT's rule cuts the other way round.
    [
        *((127, factor, (1, 127)) for factor in (-1, 2, 4, 8, 16)),
        *((128, factor, found) for factor, found in ((-1, (8, 16)), (2, (2, 64)), (4, (4, 32)), (8, (8, 16)), (16, (8, 16)))),
        *((250, factor, found) for factor, found in ((-1, (10, 25)), (2, (2, 125)), (4, (2, 125)), (8, (5, 50)), (16, (10, 25)))),
        *((360, factor, found) for factor, found in ((-1, (18, 20)), (2, (2, 180)), (4, (4, 90)), (8, (8, 45)), (16, (15, 24)))),
        *((1024, factor, found) for factor, found in ((-1, (32, 32)), (4, (4, 256)), (16, (16, 64)))),
        (4, 16, (2, 2)),
        (1, -1, (1, 1)),
    ],
)
def test_sides_are_cut_as_lycoris_cuts_them(size: int, factor: int, expected: tuple[int, int]):
    assert two_factors(size, factor) == expected
