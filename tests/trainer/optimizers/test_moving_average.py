"""The moving average of an adapter is diffusers', lies on its row, and stands still where the row does."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from lorafleet.spec import AdapterSpec, OptimizationSpec
from trainer.adapters.bank import Bank
from trainer.adapters.layout import Kind
from trainer.adapters.model import PackModel
from trainer.families import family
from trainer.optimizers import moving_average
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.stacked import StackedOptimizer

NUM_STEPS = 20
SPECS = [OptimizationSpec(learning_rate=1e-2, ema_decay=decay) for decay in (0.5, 0.999)]


def bank_of(optimizer: str = "adamw") -> Bank:
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(7, 5)})
    model = PackModel(family("sd1"), {"unet": net.requires_grad_(False)}, trains_text=False)
    adapter = AdapterSpec(rank=2, target_modules=("a",))
    bank = model.add_bank(Kind.of(adapter, optimizer, keeps_average=True), len(SPECS), batch_invariant=False)
    for number in range(len(SPECS)):
        bank.add_style(torch.randn(bank.layout.size, generator=torch.Generator().manual_seed(number)), 1.0)
    return bank


def stepped(optimizer: StackedOptimizer, bank: Bank, step: int) -> None:
    bank.flat.grad = torch.randn(bank.flat.shape, generator=torch.Generator().manual_seed(100 + step))
    optimizer.param_groups[0]["updates"] = [StyleUpdate(spec, spec.learning_rate, step, 1.0, True) for spec in SPECS]
    optimizer.step()


def averages(optimizer: StackedOptimizer, bank: Bank) -> Tensor:
    return optimizer.state_of(bank.flat, 0)[moving_average.KEY]


@pytest.mark.parametrize("name", ["adamw", "lion", "prodigy"])
def test_it_is_diffusers_average_of_each_style(name: str):
    bank = bank_of(name)
    optimizer = StackedOptimizer([bank], clips=True)
    shadows = [nn.Parameter(row.detach().clone()) for row in bank.flat]
    theirs = [EMAModel([shadow], decay=spec.ema_decay or 0) for shadow, spec in zip(shadows, SPECS, strict=True)]
    for step in range(NUM_STEPS):
        stepped(optimizer, bank, step)
        for slot, (shadow, their) in enumerate(zip(shadows, theirs, strict=True)):
            with torch.no_grad():
                shadow.copy_(bank.flat[slot])
            their.step([shadow])
            torch.testing.assert_close(averages(optimizer, bank)[slot], their.shadow_params[0].detach(), rtol=1e-5, atol=1e-7)
    assert not torch.equal(averages(optimizer, bank)[0], bank.flat[0])


def test_its_decay_warms_up():
    """By hand: 0, 2/11, 3/12, 4/13, ..., up to what was asked for, which 0.5 is after 8 steps: 9/18."""
    assert [moving_average.decay(0.5, step) for step in (0, 1, 2, 3, 7, 8, 9)] == [0, 2 / 11, 3 / 12, 4 / 13, 8 / 17, 0.5, 0.5]


def test_after_one_step_it_is_the_adapter():
    bank = bank_of()
    optimizer = StackedOptimizer([bank], clips=True)
    stepped(optimizer, bank, 0)
    assert torch.equal(averages(optimizer, bank), bank.flat)


def test_a_gradient_that_is_no_number_leaves_it():
    bank = bank_of()
    optimizer = StackedOptimizer([bank], clips=True)
    for step in range(3):
        stepped(optimizer, bank, step)
    before = averages(optimizer, bank).clone()
    bank.flat.grad = torch.ones_like(bank.flat)
    bank.flat.grad[0, 3] = float("inf")
    optimizer.step()
    assert torch.equal(averages(optimizer, bank)[0], before[0])
    assert not torch.equal(averages(optimizer, bank)[1], before[1])


def test_before_the_first_step_the_adapter_is_judged_itself():
    bank = bank_of()
    optimizer = StackedOptimizer([bank], clips=True)
    update = StyleUpdate(SPECS[1], 1e-2, 0, 1.0, True)
    assert optimizer.evaluated(0, 1, update) is None
    stepped(optimizer, bank, 0)
    stepped(optimizer, bank, 1)
    judged = optimizer.evaluated(0, 1, update._replace(steps_done=2))
    assert judged is not None
    assert torch.equal(judged, averages(optimizer, bank)[1])
    assert optimizer.evaluated(0, 1, update._replace(steps_done=2, gives_average=False)) is None
