"""Each optimizer is its library's own, tensor by tensor: alone on the same gradients it comes to the same bits."""

from math import prod
from typing import Any

import pytest
import torch
from bitsandbytes.optim import AdamW8bit, Lion8bit
from pytorch_optimizer import CAME, AdaFactor, Lion, Prodigy, ScheduleFreeAdamW
from torch import Tensor, nn

from lorafleet import catalog
from lorafleet.spec import AdapterSpec, OptimizationSpec
from trainer.adapters.bank import Bank
from trainer.adapters.layout import Kind
from trainer.adapters.model import PackModel
from trainer.families import family
from trainer.optimizers import OPTIMIZERS
from trainer.optimizers.protocol import StyleUpdate, Tensors
from trainer.optimizers.stacked import StackedOptimizer

BY_LIBRARY: dict[str, tuple[Any, dict[str, Any]]] = {
    "lion": (Lion, {"betas": (0.9, 0.99), "weight_decay": 0.1}),
    "adafactor": (AdaFactor, {"betas": (None, 0.999), "relative_step": False, "scale_parameter": False, "weight_decay": 0.1}),
    "came": (CAME, {"betas": (0.9, 0.999, 0.9999), "weight_decay": 0.1}),
    "prodigy": (Prodigy, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "adamw_schedule_free": (ScheduleFreeAdamW, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "adamw_8bit": (AdamW8bit, {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}),
    "lion_8bit": (Lion8bit, {"betas": (0.9, 0.99), "weight_decay": 0.1}),
}
RATES = (1e-2, 3e-3)
SPEC = OptimizationSpec(weight_decay=0.1, max_grad_norm=0.0)
NUM_STEPS = 20


class Net(nn.Module):
    """A layer whose tensors are large enough for 8 bits, one whose are not, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small, self.conv = nn.Linear(512, 640), nn.Linear(16, 12), nn.Conv2d(8, 6, 3)


def bank_of(optimizer: str, num_styles: int) -> Bank:
    torch.manual_seed(0)
    model = PackModel(family("sd1"), {"unet": Net().requires_grad_(False)}, trains_text=False)
    adapter = AdapterSpec(method="dora", rank=8, target_modules=("large", "small", "conv"))
    bank = model.add_bank(Kind.of(adapter, optimizer), num_styles, batch_invariant=False)
    for number in range(num_styles):
        bank.add_style(torch.randn(bank.layout.size, generator=torch.Generator().manual_seed(number)), 1.0)
    return bank


def gradients(step: int, size: int) -> Tensor:
    """A row for each style."""
    return torch.randn(len(RATES), size, generator=torch.Generator().manual_seed(100 + step))


def pieces(bank: Bank, row: Tensor) -> list[Tensor]:
    return [part[0].clone() for _, part in bank.layout.split(row[None].detach())]


def rate(step: int, slot: int) -> float:
    return RATES[slot] * (1 - step / 100)


def stepped(optimizer: StackedOptimizer, bank: Bank, step: int, slots: tuple[int, ...] = (0, 1)) -> None:
    """`slots`: of the style in each of the bank's."""
    bank.flat.grad = gradients(step, bank.layout.size)[list(slots)]
    optimizer.param_groups[0]["updates"] = [StyleUpdate(SPEC, rate(step, slot), step) for slot in slots]
    optimizer.step()


def of_library(name: str, bank: Bank, slot: int) -> tuple[Any, list[Tensor]]:
    """The library by itself, over 20 steps of one style."""
    make, options = BY_LIBRARY[name]
    theirs = pieces(bank, bank.flat[slot])
    alone = make(theirs, lr=RATES[slot], **options)
    for step in range(NUM_STEPS):
        for tensor, gradient in zip(theirs, pieces(bank, gradients(step, bank.layout.size)[slot]), strict=True):
            tensor.grad = gradient
        alone.param_groups[0]["lr"] = rate(step, slot)
        alone.step()
    return alone, theirs


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_all_optimizers_of_libraries_are_compared():
    assert {*BY_LIBRARY, "adamw"} == set(catalog.OPTIMIZERS.names())


@pytest.mark.parametrize("name", BY_LIBRARY)
def test_it_steps_as_its_library_does(name: str):
    bank = bank_of(name, 2)
    expected = [flat(of_library(name, bank, slot)[1]) for slot in range(2)]
    optimizer = StackedOptimizer([bank], clips=True)
    for step in range(NUM_STEPS):
        stepped(optimizer, bank, step)
    for slot in range(2):
        assert torch.equal(bank.flat[slot], expected[slot])
    assert not torch.equal(bank.flat[0], bank_of(name, 2).flat[0])


@pytest.mark.parametrize("name", BY_LIBRARY)
def test_what_is_kept_goes_on_in_another_slot(name: str):
    """As when a style left, or a run was killed."""
    bank = bank_of(name, 2)
    expected = flat(of_library(name, bank, 1)[1])
    optimizer = StackedOptimizer([bank], clips=True)
    for step in range(7):
        stepped(optimizer, bank, step)
    other = bank_of(name, 1)
    with torch.no_grad():
        other.flat[0] = bank.flat[1]
    later = StackedOptimizer([other], clips=True)
    for key, tensor in later.state_of(other.flat, 0).items():
        tensor[0] = optimizer.state_of(bank.flat, 0)[key][1]
    for step in range(7, NUM_STEPS):
        stepped(later, other, step, slots=(1,))
    assert torch.equal(other.flat[0], expected)


@pytest.mark.parametrize("name", BY_LIBRARY)
def test_a_gradient_that_is_no_number_moves_nothing(name: str):
    bank = bank_of(name, 2)
    optimizer = StackedOptimizer([bank], clips=True)
    stepped(optimizer, bank, 0)
    before, state = bank.flat.detach().clone(), {key: kept.clone() for key, kept in optimizer.state_of(bank.flat, 0).items()}
    bank.flat.grad = gradients(1, bank.layout.size)
    bank.flat.grad[0, 3] = float("nan")
    optimizer.step()
    assert optimizer.param_groups[0]["finite"].tolist() == [False, True]
    assert torch.equal(bank.flat[0], before[0])
    assert all(torch.equal(kept[0], state[key][0]) for key, kept in optimizer.state_of(bank.flat, 0).items())
    assert not torch.equal(bank.flat[1], before[1])


@pytest.mark.parametrize("name", catalog.OPTIMIZERS.names())
def test_its_facts_say_what_it_keeps(name: str):
    bank = bank_of(name, 1)
    shapes = tuple(piece.shape for piece in bank.layout.pieces)
    kept = {key: each for key, each in OPTIMIZERS.get(name).kept(Tensors(shapes, (0,) * len(shapes))).items() if key != "numbers"}
    assert sum(prod(each.shape) * each.dtype.itemsize for each in kept.values()) == sum(
        catalog.OPTIMIZERS.get(name).state_bytes(shape) for shape in shapes
    )


def test_schedule_free_is_judged_by_its_average():
    """What its library's `eval()` makes of the weights; training goes on from those that it left."""
    name = "adamw_schedule_free"
    bank = bank_of(name, 2)
    alone, theirs = of_library(name, bank, 1)
    alone.eval()
    optimizer = StackedOptimizer([bank], clips=True)
    assert torch.equal(judged(optimizer, 0), bank.flat[1]), "nothing has been averaged"
    for step in range(NUM_STEPS):
        stepped(optimizer, bank, step)
    trained = bank.flat.detach().clone()
    assert torch.equal(judged(optimizer, NUM_STEPS), flat(theirs))
    assert torch.equal(bank.flat, trained)
    assert not torch.equal(flat(theirs), trained[1])


def judged(optimizer: StackedOptimizer, step: int) -> Tensor:
    found = optimizer.evaluated(0, 1, StyleUpdate(SPEC, rate(step, 1), step))
    assert found is not None
    return found
