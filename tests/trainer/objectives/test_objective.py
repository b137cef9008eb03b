"""The objective: the draws of an example do not depend on its batch; weights and rates are the published ones."""

import math
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from lorafleet.spec import OptimizationSpec, Spec, parse
from tests.lorafleet.specs import with_fields
from trainer.keyed import Key
from trainer.objectives.diffusion import Diffusion
from trainer.objectives.draws import Draw, Noised, draws, drops_caption, noised
from trainer.objectives.noises import Noises
from trainer.objectives.weights import min_snr
from trainer.optimizers.schedule import learning_rate

KEY = Key(5, "style")
LATENTS = {index: torch.full((4, 8, 8), float(index)) for index in range(6)}
SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def asking(**sections: Any) -> Spec:
    return parse(with_fields(**sections))


def drawn(examples: list[Draw], **options: float) -> Noised:
    objective = Diffusion.of(SCHEDULER, asking(training=options))
    return noised(torch.stack([LATENTS[each.sample] for each in examples]), examples, KEY, objective)


def weight(scheduler: Any, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
    return Diffusion(scheduler, weighting=None if gamma is None else min_snr(gamma)).weight(timesteps)


def test_an_example_is_the_same_alone_and_in_any_batch():
    options = {"noise_offset": 0.1, "min_snr_gamma": 5.0}
    together = drawn(draws([3, 1, 4], step=9), **options)
    for row, example in enumerate(draws([3, 1, 4], step=9)):
        alone = drawn([example], **options)
        for field in ("noisy", "times", "target", "weight"):
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[row])


def test_what_is_perturbed_is_seen_and_not_to_be_told():
    plain, perturbed = (
        drawn(draws([2], step=0)),
        noised(LATENTS[2][None], draws([2], 0), KEY, Diffusion(SCHEDULER, noises=Noises(perturbation=0.2))),
    )
    assert torch.equal(perturbed.target, plain.target)
    assert not torch.equal(perturbed.noisy, plain.noisy)


def test_a_picture_that_repeats_in_a_step_is_noised_differently():
    batch = drawn(draws([2, 2], step=0))
    assert not torch.equal(batch.target[0], batch.target[1])


def test_caption_dropout_drops_its_share():
    dropped = [drops_caption(KEY, Draw(step, 0, 0), 0.3) for step in range(400)]
    assert 0.2 < sum(dropped) / len(dropped) < 0.4
    assert not drops_caption(KEY, Draw(0, 0, 0), 0.0)


def test_min_snr_weights_are_those_of_the_paper():
    timesteps = torch.tensor([0, 100, 500, 999])
    snr = compute_snr(SCHEDULER, timesteps)
    expected = torch.stack([snr, torch.full_like(snr, 5.0)]).min(dim=0).values / snr
    assert torch.allclose(weight(SCHEDULER, timesteps, 5.0), expected, rtol=1e-4)
    assert weight(SCHEDULER, timesteps, None).tolist() == [1.0] * 4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_finite_where_the_signal_or_the_noise_is_gone(kind: str):
    """Zero terminal SNR (Lin et al. 2024) ends at SNR 0; a schedule of zeros begins at SNR infinity."""
    ends = DDPMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True, prediction_type=kind)  # pyright: ignore[reportArgumentType]
    assert ends.alphas_cumprod[-1] == 0
    weights = weight(ends, torch.tensor([0, 500, 998, 999]), 5.0)
    assert weights[-1] == (1 if kind == "epsilon" else 0), "the limit of the paper's formula"
    assert torch.allclose(weights[-2:], weight(ends, torch.tensor([998, 998]), 5.0), atol=1e-2)
    ends.alphas_cumprod[0] = 1.0
    assert weight(ends, torch.tensor([0]), 5.0).isfinite().all()


def test_v_prediction_has_its_own_target_and_weight():
    scheduler: Any = DDPMScheduler.from_config(SCHEDULER.config, prediction_type="v_prediction")
    latents, noise, timesteps = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([500])
    assert torch.equal(Diffusion(scheduler).target(latents, noise, timesteps), scheduler.get_velocity(latents, noise, timesteps))
    snr = compute_snr(scheduler, timesteps)
    assert torch.allclose(weight(scheduler, timesteps, 5.0), snr.clamp(max=5) / (snr + 1), rtol=1e-4)


def test_a_network_that_predicts_the_picture_has_it_for_its_target():
    """Its error is 1 / snr times that of the noise, so min(snr, gamma) weighs it as min-SNR weighs the noise's (Hang et al. 2023, 3.4)."""
    scheduler: Any = DDPMScheduler.from_config(SCHEDULER.config, prediction_type="sample")
    latents, noise, timesteps = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([500])
    assert torch.equal(Diffusion(scheduler).target(latents, noise, timesteps), latents)
    snr = compute_snr(scheduler, timesteps)
    assert torch.allclose(weight(scheduler, timesteps, 5.0), snr * weight(SCHEDULER, timesteps, 5.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.75, 0.5]), ("cosine", [0.5, 1, 1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5])],
)
def test_the_rate_warms_up_and_falls(scheduler: str, expected: list[float]):
    spec = OptimizationSpec(learning_rate=1.0, lr_warmup_steps=2, max_steps=6, lr_scheduler=scheduler)  # pyright: ignore
    assert [learning_rate(spec, step) for step in range(5)] == pytest.approx(expected)
