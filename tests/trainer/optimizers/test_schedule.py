"""The rate of each step, against diffusers' schedules and values by hand."""

from typing import Any

import pytest
import torch
from diffusers import optimization

from lorafleet.spec import OptimizationSpec, parse
from trainer.adapters.layout import Kind
from trainer.optimizers.schedule import Rates, learning_rate

PEAK, STEPS, WARMUP = 2e-3, 90, 12
THEIRS: dict[str, Any] = {
    "constant": lambda optimizer: optimization.get_constant_schedule_with_warmup(optimizer, WARMUP),
    "linear": lambda optimizer: optimization.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS),
    "cosine": lambda optimizer: optimization.get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS),
    "cosine_with_restarts": lambda optimizer: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, WARMUP, STEPS, 3),
    "polynomial": lambda optimizer: optimization.get_polynomial_decay_schedule_with_warmup(optimizer, WARMUP, STEPS, 1e-5, 2.0),
}
MORE = {"cosine_with_restarts": {"lr_cycles": 3}, "polynomial": {"lr_power": 2.0, "lr_end": 1e-5}}


def rates(scheduler: str, *, steps: int = STEPS, warmup: int = WARMUP, **more: Any) -> list[float]:
    spec = OptimizationSpec.model_validate(
        {"max_steps": steps, "learning_rate": PEAK, "lr_scheduler": scheduler, "lr_warmup_steps": warmup, **more}
    )
    return [learning_rate(spec, step) for step in range(steps)]


def of_diffusers(scheduler: str) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=PEAK)
    schedule = THEIRS[scheduler](optimizer)
    found: list[float] = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("scheduler", THEIRS)
def test_after_the_warm_up_a_schedule_is_diffusers_own(scheduler: str):
    assert rates(scheduler, **MORE.get(scheduler, {}))[WARMUP:] == pytest.approx(of_diffusers(scheduler)[WARMUP:], rel=1e-12)


def test_every_schedule_of_a_spec_is_compared():
    literal = OptimizationSpec.model_json_schema()["properties"]["lr_scheduler"]["enum"]
    assert {*THEIRS} == {*literal}


@pytest.mark.parametrize("scheduler", THEIRS)
def test_the_warm_up_wastes_no_step_and_ends_at_the_peak(scheduler: str):
    found = rates(scheduler, **MORE.get(scheduler, {}))
    assert found[:WARMUP] == pytest.approx([PEAK * (step + 1) / WARMUP for step in range(WARMUP)])
    assert found[WARMUP] == pytest.approx(PEAK)


def test_restarts_begin_at_the_peak_again():
    """Three cycles of 4 steps: 1, (1 + sqrt(1/2)) / 2, 1/2, (1 - sqrt(1/2)) / 2."""
    cycle = [1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]
    assert rates("cosine_with_restarts", steps=12, warmup=0, lr_cycles=3) == pytest.approx([PEAK * share for share in cycle * 3])


def test_one_cycle_is_the_cosine():
    assert rates("cosine_with_restarts") == rates("cosine")


def test_a_polynomial_falls_to_its_end():
    """A cubic over 4 steps: (1, 27/64, 8/64, 1/64) of the way, above its end."""
    end = 1e-4
    expected = [end + (PEAK - end) * share / 64 for share in (64, 27, 8, 1)]
    assert rates("polynomial", steps=4, warmup=0, lr_power=3.0, lr_end=end) == pytest.approx(expected)


def test_a_polynomial_of_nothing_more_is_linear_to_1e_7():
    assert rates("polynomial") == pytest.approx([max(rate, 0) for rate in rates("linear")], abs=1.01e-7)
    assert min(rates("polynomial", warmup=0)) > 1e-7


def test_a_run_of_nothing_but_warm_up_has_a_rate():
    for scheduler in THEIRS:
        assert rates(scheduler, steps=WARMUP)[-1] == pytest.approx(PEAK)


def test_new_tokens_have_a_rate_of_their_own_by_the_same_schedule_until_they_stop():
    fields: dict[str, Any] = {
        "base_model": {"uri": "file:///base", "family": "sd1"},
        "dataset": {"uri": "file:///pictures"},
        "textual_inversion": {"tokens": [{"token": "<s1>"}], "learning_rate": 3e-2, "train_fraction": 0.5},
        "training": {"max_steps": 4, "learning_rate": 1e-3, "lr_scheduler": "linear", "lora_plus_ratio": 2.0},
    }
    found = Rates.of(parse(fields))
    assert [found.at(step) for step in range(4)] == [
        pytest.approx((share * 1e-3, share * 2e-3, share * 3e-2 if step < 2 else 0.0)) for step, share in enumerate((1, 0.75, 0.5, 0.25))
    ]
    assert found.told(1) == pytest.approx(0.75e-3)
    alone = {**fields, "textual_inversion": {"tokens": [{"token": "<s1>"}], "alone": True}, "training": {"max_steps": 4}}
    assert Rates.of(parse(alone)).told(0) == pytest.approx(5e-4)


def test_new_tokens_have_no_rate_of_their_own_with_an_optimizer_that_finds_one():
    fields: dict[str, Any] = {
        "base_model": {"uri": "file:///base", "family": "sd1"},
        "dataset": {"uri": "file:///pictures"},
        "textual_inversion": {"tokens": [{"token": "<s1>"}]},
        "training": {"max_steps": 4, "learning_rate": 1.0, "optimizer": "prodigy", "lr_scheduler": "constant"},
    }
    asked = parse(fields)
    assert Rates.of(asked).at(0) == ()
    assert Kind.of_spec(asked).token_group == 0
