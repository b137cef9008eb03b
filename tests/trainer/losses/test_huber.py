"""Pseudo-Huber: squared where errors are small, straight where they are large, with a scale that follows the time as published."""

from math import sqrt

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from lorafleet.spec import ObjectiveSpec
from trainer.losses import LOSSES
from trainer.losses.protocol import Loss
from trainer.objectives.diffusion import Diffusion
from trainer.objectives.flow import FlowMatching
from trainer.objectives.scales import scales_of

HUBER, SQUARED = LOSSES.get("huber"), LOSSES.get("squared")


def of(loss: Loss, errors: list[float], scale: float = 0.1) -> float:
    predicted = torch.tensor(errors).reshape(1, 1, 1, -1)
    return loss(predicted, torch.zeros_like(predicted), torch.tensor([scale])).item()


@pytest.mark.parametrize(("error", "scale"), [(0.3, 0.1), (2.0, 0.5), (0.0, 0.1)])
def test_its_value_is_the_published_one(error: float, scale: float):
    assert of(HUBER, [error], scale) == pytest.approx(2 * scale * (sqrt(error**2 + scale**2) - scale), abs=1e-7)


def test_small_errors_count_as_squared_ones_do():
    assert of(HUBER, [1e-3], 1.0) == pytest.approx(of(SQUARED, [1e-3]), rel=1e-3)


def test_large_errors_pull_no_harder_the_larger_they_are():
    pulls = []
    for error in (10.0, 100.0):
        predicted = torch.tensor([[[[error]]]], requires_grad=True)
        HUBER(predicted, torch.zeros(1, 1, 1, 1), torch.tensor([0.1])).sum().backward()
        assert predicted.grad is not None
        pulls.append(predicted.grad.item())
    assert pulls == pytest.approx([0.2, 0.2], rel=1e-3)


def test_each_row_has_its_own_scale():
    predicted = torch.ones(2, 1, 2, 2)
    both = HUBER(predicted, torch.zeros_like(predicted), torch.tensor([0.1, 1.0]))
    assert both.tolist() == pytest.approx([of(HUBER, [1.0], 0.1), of(HUBER, [1.0], 1.0)])


@pytest.mark.parametrize("name", ["squared", "huber"])
def test_a_mask_takes_places_out_and_keeps_the_mean_of_the_others(name: str):
    predicted, mask = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    masked = LOSSES.get(name)(predicted, torch.zeros_like(predicted), torch.tensor([0.1]), mask)
    assert masked.item() == pytest.approx(of(LOSSES.get(name), [1.0]))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2, 0.2, 0.2]),
        ("exponential", [1.0, sqrt(0.2), 0.2]),
        ("snr", [1.0, 0.8 / 4 + 0.2, 0.2]),
        (None, [1.0, 0.8 / 4 + 0.2, 0.2]),
    ],
)
def test_scales_fall_from_one_to_delta_as_noise_grows(schedule: str | None, expected: list[float]):
    """At no noise, at as much noise as signal, and at nothing but noise (Khrapov et al. 2024, section 3.2)."""
    spec = ObjectiveSpec(loss="huber", huber_delta=0.2, huber_schedule=schedule)  # pyright: ignore[reportArgumentType]
    shares, snr = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([torch.inf, 1.0, 0.0])
    assert scales_of(spec)(shares, snr).tolist() == pytest.approx(expected)


def test_scales_go_by_each_objectives_own_times():
    scale = scales_of(ObjectiveSpec(loss="huber", huber_delta=0.2))
    assert FlowMatching(scale=scale).scales(torch.tensor([500.0])).item() == pytest.approx(0.4)
    diffusion = Diffusion(DDPMScheduler(beta_schedule="scaled_linear"), scale=scale)
    diffusion.scheduler.alphas_cumprod[300] = 0.5
    assert diffusion.scales(torch.tensor([300])).item() == pytest.approx(0.4)
