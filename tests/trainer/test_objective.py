"""The objective: the draws of an example do not depend on its batch; weights and rates are the published ones."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from lorafleet.spec import OptimizationSpec
from trainer import objective
from trainer.keyed import Key
from trainer.latent_cache import Encoded
from trainer.objective import Draw, MicroBatch

KEY = Key(5, "style")
CAPTIONS = [f"picture {index}" for index in range(6)]
ENCODED = Encoded(latents={index: torch.full((4, 8, 8), float(index)) for index in range(6)}, texts={})
SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def micro_batch(examples: list[Draw], **options: float) -> MicroBatch:
    return objective.micro_batch(
        examples,
        encoded=ENCODED,
        captions=CAPTIONS,
        key=KEY,
        spec=OptimizationSpec(**options),  # pyright: ignore[reportArgumentType]
        scheduler=SCHEDULER,
        device=torch.device("cpu"),
    )


def test_an_example_is_the_same_alone_and_in_any_batch():
    options = {"caption_dropout": 0.5, "noise_offset": 0.1, "min_snr_gamma": 5.0}
    together = micro_batch(objective.draws([3, 1, 4], step=9), **options)
    for row, example in enumerate(objective.draws([3, 1, 4], step=9)):
        alone = micro_batch([example], **options)
        for field in ("noisy", "timesteps", "target", "weight"):
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[row])
        assert alone.captions[0] == together.captions[row]


def test_a_picture_that_repeats_in_a_step_is_noised_differently():
    batch = micro_batch(objective.draws([2, 2], step=0))
    assert not torch.equal(batch.target[0], batch.target[1])


def test_caption_dropout_drops_its_share():
    dropped = [micro_batch([Draw(step, 0, 0)], caption_dropout=0.3).captions == ("",) for step in range(400)]
    assert 0.2 < sum(dropped) / len(dropped) < 0.4


def test_min_snr_weights_are_those_of_the_paper():
    timesteps = torch.tensor([0, 100, 500, 999])
    snr = compute_snr(SCHEDULER, timesteps)
    expected = torch.stack([snr, torch.full_like(snr, 5.0)]).min(dim=0).values / snr
    assert torch.allclose(objective.min_snr_weight(SCHEDULER, timesteps, 5.0), expected, rtol=1e-4)
    assert objective.min_snr_weight(SCHEDULER, timesteps, None).tolist() == [1.0] * 4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_finite_where_the_signal_or_the_noise_is_gone(kind: str):
    """Zero terminal SNR (Lin et al. 2024) ends at SNR 0; a schedule of zeros begins at SNR infinity."""
    ends = DDPMScheduler(beta_schedule="scaled_linear", rescale_betas_zero_snr=True, prediction_type=kind)
    assert ends.alphas_cumprod[-1] == 0
    weights = objective.min_snr_weight(ends, torch.tensor([0, 500, 998, 999]), 5.0)
    assert weights[-1] == (1 if kind == "epsilon" else 0), "the limit of the paper's formula"
    assert torch.allclose(weights[-2:], objective.min_snr_weight(ends, torch.tensor([998, 998]), 5.0), atol=1e-2)
    ends.alphas_cumprod[0] = 1.0
    assert objective.min_snr_weight(ends, torch.tensor([0]), 5.0).isfinite().all()


def test_v_prediction_has_its_own_target_and_weight():
    scheduler = DDPMScheduler.from_config(SCHEDULER.config, prediction_type="v_prediction")
    latents, noise, timesteps = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), torch.tensor([500])
    assert torch.equal(objective.target(scheduler, latents, noise, timesteps), scheduler.get_velocity(latents, noise, timesteps))
    snr = compute_snr(scheduler, timesteps)
    assert torch.allclose(objective.min_snr_weight(scheduler, timesteps, 5.0), snr.clamp(max=5) / (snr + 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 0.75, 0.5]), ("cosine", [0.5, 1, 1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5])],
)
def test_the_rate_warms_up_and_falls(scheduler: str, expected: list[float]):
    spec = OptimizationSpec(learning_rate=1.0, lr_warmup_steps=2, max_steps=6, lr_scheduler=scheduler)  # pyright: ignore
    assert [objective.learning_rate(spec, step) for step in range(5)] == pytest.approx(expected)
