"""Flow matching: draws do not depend on their batch, times are spread and shifted as published, the line is the published one."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from trainer.keyed import Key, Purpose
from trainer.objectives.draws import Draw, draws, noised
from trainer.objectives.flow import NUM_TIMES, FlowMatching
from trainer.objectives.times import Density, TimeShares, by_tokens, constant, logit_normal, uniform

KEY = Key(5, "style")
LATENTS = torch.arange(6.0)[:, None, None, None].expand(6, 4, 8, 8)
SHAPE = (4, 8, 8)


def generators(number: int) -> list[np.random.Generator]:
    return [KEY.generator(Purpose.TIMESTEP, index) for index in range(number)]


def test_an_example_is_the_same_alone_and_in_any_batch():
    objective = FlowMatching(TimeShares(logit_normal, constant(3.0)))
    together = noised(LATENTS[[3, 1, 4]], draws([3, 1, 4], step=9), KEY, objective)
    for row, sample in enumerate([3, 1, 4]):
        alone = noised(LATENTS[[sample]], [Draw(9, sample, 0)], KEY, objective)
        for field in ("noisy", "times", "target", "weight"):
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[row])


def test_noised_latents_are_as_the_libraries_scheduler_noises_them():
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=1.0)
    noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    times = scheduler.timesteps[[100, 900]]
    expected = scheduler.scale_noise(LATENTS[:2], times, noise)
    assert torch.allclose(FlowMatching().noisy(LATENTS[:2], noise, times), expected, atol=1e-6)


def test_the_target_leads_from_the_latents_to_the_noise():
    noise, times = torch.ones(1, *SHAPE), torch.tensor([250.0])
    flow = FlowMatching()
    noisy, target = flow.noisy(LATENTS[4:5], noise, times), flow.target(LATENTS[4:5], noise, times)
    assert torch.allclose(noisy + 0.75 * target, noise)
    assert torch.allclose(noisy - 0.25 * target, LATENTS[4:5])


@pytest.mark.parametrize(("density", "half", "outer"), [(uniform, 0.5, 0.2), (logit_normal, 0.5, 0.0279)])
def test_times_have_the_density_that_they_are_said_to_have(density: Density, half: float, outer: float):
    """`outer`: the share below 0.1 and above 0.9; of a logit-normal 2 Phi(logit 0.1)."""
    sigmas = FlowMatching(TimeShares(density)).times(generators(4000), SHAPE) / NUM_TIMES
    assert (sigmas < 0.5).float().mean().item() == pytest.approx(half, abs=0.03)
    assert ((sigmas < 0.1) | (sigmas > 0.9)).float().mean().item() == pytest.approx(outer, abs=0.02)
    assert sigmas.min() > 0
    assert sigmas.max() <= 1


def test_shifted_times_are_those_of_the_libraries_scheduler():
    flat, shifted = FlowMatching().times(generators(50), SHAPE), FlowMatching(TimeShares(shift=constant(3.0))).times(generators(50), SHAPE)
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=(flat / NUM_TIMES).tolist())
    assert torch.allclose(shifted, scheduler.timesteps, rtol=1e-5)


def test_larger_pictures_get_more_noise_as_the_sampler_gives_them():
    scheduler: Any = FlowMatchEulerDiscreteScheduler(base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
    shift = by_tokens(dict(scheduler.config), patch=2)
    assert shift((16, 32, 32)) == pytest.approx(math.exp(0.5))
    assert shift((16, 128, 128)) == pytest.approx(math.exp(1.15))
    assert shift((16, 64, 128)) == pytest.approx(math.exp(0.5 + 0.65 * (2048 - 256) / (4096 - 256)))


def test_held_out_times_are_spread_evenly_and_have_no_chance():
    assert FlowMatching().held_out_times(4) == [125.0, 375.0, 625.0, 875.0]
