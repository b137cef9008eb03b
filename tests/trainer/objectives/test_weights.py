"""Weights: one function of the signal-to-noise ratio, right for whatever is predicted; against values worked out by hand."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from lorafleet.spec import ObjectiveSpec, OptimizationSpec
from trainer.objectives.diffusion import Diffusion
from trainer.objectives.flow import FlowMatching
from trainer.objectives.weights import DEBIASED, SNR, Weighting, min_snr, weighting_of

KINDS = ("epsilon", "v_prediction", "sample")
WEIGHTINGS = {"min_snr": min_snr(5.0), "snr": SNR, "debiased": DEBIASED}
TIMES = torch.tensor([0, 250, 500, 999])


def scheduler(kind: str) -> Any:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)  # pyright: ignore[reportArgumentType]


def squared_errors(kind: str, latents: Tensor, guess: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
    """Of a network that takes `guess` for the latents of `noisy`, in the terms of what it predicts."""
    objective = Diffusion(scheduler(kind))
    signal = objective.scheduler.alphas_cumprod[times].sqrt().reshape(-1, 1, 1, 1)
    share = (1 - objective.scheduler.alphas_cumprod[times]).sqrt().reshape(-1, 1, 1, 1)
    noise, told = (noisy - signal * latents) / share, (noisy - signal * guess) / share
    return (objective.target(latents, noise, times) - objective.target(guess, told, times)).pow(2).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_same_guess_costs_the_same_whatever_is_predicted(weighting: str):
    generator = torch.Generator().manual_seed(1)
    latents, guess, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(3))
    noisy = Diffusion(scheduler("epsilon")).noisy(latents, noise, TIMES)
    costs = [
        Diffusion(scheduler(kind), weighting=WEIGHTINGS[weighting]).weight(TIMES) * squared_errors(kind, latents, guess, noisy, TIMES)
        for kind in KINDS
    ]
    assert torch.allclose(costs[1], costs[0], rtol=2e-3)
    assert torch.allclose(costs[2], costs[0], rtol=2e-3)


@pytest.mark.parametrize(("name", "expected"), [("snr", (1 - 0.25) ** 2), ("debiased", 0.25 * 0.75), ("min_snr", 5 * 0.25**2)])
def test_flow_has_its_own_weights(name: str, expected: float):
    """At a quarter of noise the signal-to-noise ratio is 9, and an error of the flow is 4 times one of the latents."""
    assert FlowMatching(weighting=WEIGHTINGS[name]).weight(torch.tensor([250.0])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("snr", "epsilon", 1.0),
        ("snr", "sample", 3.0),
        ("snr", "v_prediction", 3 / 4),
        ("debiased", "epsilon", 3**-0.5),
        ("debiased", "sample", 3**0.5),
        ("debiased", "v_prediction", 3**0.5 / 4),
    ],
)
def test_a_weight_of_diffusion_is_the_published_one(name: str, kind: str, expected: float):
    objective = Diffusion(scheduler(kind), weighting=WEIGHTINGS[name])
    objective.scheduler.alphas_cumprod[500] = 0.75  # snr 3
    assert objective.weight(torch.tensor([500])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("objective", "training", "expected"),
    [({}, {}, None), ({"weighting": "snr"}, {}, SNR), ({"weighting": "debiased"}, {}, DEBIASED)],
)
def test_a_spec_names_its_weighting(objective: dict[str, Any], training: dict[str, Any], expected: Weighting | None):
    assert weighting_of(ObjectiveSpec(**objective), OptimizationSpec(**training)) is expected
