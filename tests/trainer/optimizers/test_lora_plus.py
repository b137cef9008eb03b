"""LoRA+: B at a multiple of A's rate, as PEFT's optimizer has it, and by every optimizer that can have two rates."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor

from lorafleet import catalog
from lorafleet.spec import AdapterSpec, OptimizationSpec
from tests.trainer.optimizers.test_libraries import BY_LIBRARY, Net, flat, gradients, pieces
from trainer.adapters.bank import Bank
from trainer.adapters.layout import Kind
from trainer.adapters.model import PackModel
from trainer.families import family
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.stacked import StackedOptimizer

RATIO, RATES, NUM_STEPS = 16.0, (1e-3, 3e-4), 20
SPEC = OptimizationSpec(weight_decay=0.1, max_grad_norm=0.0, lora_plus_ratio=RATIO)
LIBRARIES = [name for name in BY_LIBRARY if not catalog.OPTIMIZERS.get(name).has_one_rate]
TARGETS = ("large", "small", "conv")


def bank_of(optimizer: str, method: str = "lora") -> Bank:
    torch.manual_seed(0)
    model = PackModel(family("sd1"), {"unet": Net().requires_grad_(False)}, trains_text=False)
    adapter = AdapterSpec(method=method, rank=8, target_modules=TARGETS)
    bank = model.add_bank(Kind.of(adapter, optimizer, raises_rates=True), len(RATES), batch_invariant=False)
    for number in range(len(RATES)):
        bank.add_style(torch.randn(bank.layout.size, generator=torch.Generator().manual_seed(number)), 1.0)
    return bank


def rates(step: int, slot: int) -> tuple[float, float]:
    rate = RATES[slot] * (1 - step / 100)
    return rate, rate * RATIO


def stepped(optimizer: StackedOptimizer, bank: Bank, step: int) -> None:
    bank.flat.grad = gradients(step, bank.layout.size)
    optimizer.param_groups[0]["updates"] = [
        StyleUpdate(SPEC, rates(step, slot)[0], step, rates=rates(step, slot)) for slot in range(len(RATES))
    ]
    optimizer.step()


def by_role(bank: Bank, tensors: list[Tensor]) -> list[list[Tensor]]:
    """The As and magnitudes; the Bs."""
    sides: list[list[Tensor]] = [[], []]
    for piece, tensor in zip(bank.layout.pieces, tensors, strict=True):
        sides[piece.role == "B"].append(tensor)
    return sides


def test_adamw_is_pefts_over_20_steps():
    bank = bank_of("adamw")
    peft = inject_adapter_in_model(LoraConfig(r=8, target_modules=list(TARGETS)), Net().requires_grad_(False))
    theirs = {name.replace(".default", ""): each for name, each in peft.named_parameters() if each.requires_grad}
    with torch.no_grad():
        for name, tensor in bank.layout.named(bank.flat[0]).items():
            theirs[name.removeprefix("unet.")].copy_(tensor)
    alone = create_loraplus_optimizer(
        peft, torch.optim.AdamW, lr=RATES[0], loraplus_lr_ratio=RATIO, loraplus_weight_decay=0.1, betas=(0.9, 0.999), eps=1e-8
    )
    optimizer = StackedOptimizer([bank], clips=True)
    for step in range(NUM_STEPS):
        stepped(optimizer, bank, step)
        for name, gradient in bank.layout.named(gradients(step, bank.layout.size)[0]).items():
            theirs[name.removeprefix("unet.")].grad = gradient
        for group in alone.param_groups:
            group["lr"] = rates(step, 0)[0] * (RATIO if group is alone.param_groups[2] else 1)
        alone.step()
    for name, tensor in bank.layout.named(bank.flat[0].detach()).items():
        torch.testing.assert_close(tensor, theirs[name.removeprefix("unet.")].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_it_steps_as_its_library_with_two_groups_does(name: str, method: str):
    """DoRA's magnitudes keep A's rate: LoRA+ is of the two sides."""
    bank = bank_of(name, method)
    expected = [of_library(name, bank, slot) for slot in range(len(RATES))]
    optimizer = StackedOptimizer([bank], clips=True)
    for step in range(NUM_STEPS):
        stepped(optimizer, bank, step)
    for slot, theirs in enumerate(expected):
        assert torch.equal(bank.flat[slot], theirs)


def of_library(name: str, bank: Bank, slot: int) -> Tensor:
    make, options = BY_LIBRARY[name]
    tensors = pieces(bank, bank.flat[slot])
    groups: list[dict[str, Any]] = [{"params": side} for side in by_role(bank, tensors)]
    alone = make(groups, lr=RATES[slot], **options)
    for step in range(NUM_STEPS):
        for tensor, gradient in zip(tensors, pieces(bank, gradients(step, bank.layout.size)[slot]), strict=True):
            tensor.grad = gradient
        for group, rate in zip(alone.param_groups, rates(step, slot), strict=True):
            group["lr"] = rate
        alone.step()
    return flat(tensors)


def test_a_ratio_of_one_is_no_lora_plus():
    """But for the last bits: the kernel takes the tensors one by one."""
    bank, plain = bank_of("adamw"), bank_of("adamw")
    one, other = StackedOptimizer([bank], clips=True), StackedOptimizer([plain], clips=True)
    for step in range(3):
        for optimizer, each, given in ((one, bank, (1e-3, 1e-3)), (other, plain, ())):
            each.flat.grad = gradients(step, each.layout.size)
            optimizer.param_groups[0]["updates"] = [StyleUpdate(SPEC, 1e-3, step, rates=given)] * 2
            optimizer.step()
    torch.testing.assert_close(bank.flat, plain.flat, rtol=1e-6, atol=1e-8)


def test_a_gradient_that_is_no_number_moves_nothing():
    bank = bank_of("adamw")
    optimizer = StackedOptimizer([bank], clips=True)
    stepped(optimizer, bank, 0)
    before = bank.flat.detach().clone()
    bank.flat.grad = gradients(1, bank.layout.size)
    bank.flat.grad[0, 3] = float("nan")
    optimizer.step()
    assert torch.equal(bank.flat[0], before[0])
    assert not torch.equal(bank.flat[1], before[1])


def test_the_sides_are_what_the_method_says():
    assert {piece.role: piece.group for piece in bank_of("adamw", "dora").layout.pieces} == {"A": 0, "B": 1, "magnitude": 0}
