"""What adapters begin with: PEFT's formulas by hand, keyed draws, and the base at step 0."""

import pytest
import torch
from torch import Tensor

from lorafleet import spec
from tests.trainer.adapters.test_adapters import TARGETS, model_of, net
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.inits import INITIALIZATIONS
from trainer.adapters.layout import Kind, initial_row, scaling
from trainer.adapters.model import PackModel
from trainer.keyed import Key, Purpose


def begun(initialization: str, method: str = "lora", rank: int = 4, seed: int = 0) -> tuple[PackModel, Bank, Tensor]:
    asked = spec.AdapterSpec(method=method, rank=rank, target_modules=TARGETS)
    model = model_of(net())
    kind = Kind.of(asked, "adamw")
    bank = model.add_bank(kind, 1, batch_invariant=False)
    row = initial_row(bank.layout, bank.method, Key(seed, "s"), model.layers_of(kind), initialization)
    bank.add_style(row, scaling(asked))
    return model, bank, row


@pytest.mark.parametrize("method", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_step_0_is_the_base_and_learns(initialization: str, method: str):
    model, bank, _ = begun(initialization, method)
    model, bank = model.double(), bank.double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with model.serving([ActiveSlots(bank, [0])]):
        out = model.get_submodule("unet")(x)
    assert torch.allclose(out, net()(x), atol=1e-6)
    out.pow(2).sum().backward()
    assert bank.flat.grad is not None
    assert bank.flat.grad.abs().sum() > 0


def test_gaussian_is_a_normal_of_deviation_one_over_the_rank():
    """PEFT: nn.init.normal_(A, std=1 / r), B zero."""
    _, bank, row = begun("gaussian", rank=4)
    named = bank.layout.named(row)
    drawn = Key(0, "s").generator(Purpose.INIT, "unet.linear").standard_normal((4, 6))
    assert torch.allclose(named["unet.linear.lora_A.weight"].double(), torch.from_numpy(drawn) / 4, atol=1e-6)
    assert not any(tensor.any() for name, tensor in named.items() if "lora_B" in name)
    many = INITIALIZATIONS["gaussian"]({"A": (8, 4000), "B": (8, 8)}, Key(1, "s").generator(Purpose.INIT, "x"))["A"]
    assert float(many.std()) == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("name", TARGETS)
def test_orthogonal_sides_are_there_and_cancel(name: str):
    """PEFT: A = (randn(in, r/2) Q_odd)^T / 10, B = randn(r/2, out)^T Q_even / 10, of the rows of one orthogonal Q."""
    _, bank, row = begun("orthogonal", rank=4)
    a, b = (bank.layout.named(row)[f"unet.{name}.lora_{role}.weight"].flatten(1) for role in "AB")
    assert (b @ a).abs().max() < 1e-6
    assert a.any()
    assert b.any()
    draws = Key(0, "s").generator(Purpose.INIT, f"unet.{name}")
    q = torch.linalg.qr(torch.from_numpy(draws.standard_normal((4, 4))).float())[0]
    expected = (torch.from_numpy(draws.standard_normal((a.shape[1], 2))).float() @ q[0::2]).mT / 10
    assert torch.allclose(a, expected, atol=1e-6)
    assert torch.allclose(b, torch.from_numpy(draws.standard_normal((b.shape[0], 2))).float() @ q[1::2] / 10, atol=1e-6)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_draws_are_the_keys_alone(initialization: str):
    assert torch.equal(begun(initialization)[2], begun(initialization)[2])
    assert not torch.equal(begun(initialization)[2], begun(initialization, seed=1)[2])
