"""The training objective: keyed draws for a micro-batch, and the per-sample loss. No engine, no store."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.spec import OptimizationSpec
from trainer.keyed import Key, Purpose
from trainer.latent_cache import Encoded


@dataclass(frozen=True)
class Draw:
    """Names one training example: the picture, the step, and which of the step's repeats of that picture it is."""

    step: int
    sample: int
    repeat: int

    @property
    def indices(self) -> tuple[int, int, int]:
        return self.step, self.sample, self.repeat


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass sees; on the training device."""

    noisy: Tensor  # (batch, channels, h, w)
    timesteps: Tensor  # (batch,)
    target: Tensor  # shaped as noisy
    weight: Tensor  # (batch,)
    captions: tuple[str, ...]


def draws(batch: Sequence[int], step: int) -> list[Draw]:
    """The draws of a step's whole global batch; a small data set repeats pictures in it."""
    seen: Counter[int] = Counter()
    found = []
    for sample in batch:
        found.append(Draw(step, sample, seen[sample]))
        seen[sample] += 1
    return found


def micro_batch(
    examples: Sequence[Draw],
    *,
    encoded: Encoded,
    captions: Sequence[str],
    key: Key,
    spec: OptimizationSpec,
    scheduler: Any,
    device: torch.device,
) -> MicroBatch:
    """Noises the pictures of a micro-batch, each by draws of its own."""
    latents = torch.stack([encoded.latents[each.sample] for each in examples])
    shape = tuple(latents.shape[1:])
    noise = _normals(key, Purpose.NOISE, examples, shape)
    if spec.noise_offset:
        noise = noise + spec.noise_offset * _normals(key, Purpose.NOISE_OFFSET, examples, (shape[0], 1, 1))
    steps = scheduler.config.num_train_timesteps
    timesteps = torch.tensor([int(key.generator(Purpose.TIMESTEP, *each.indices).integers(steps)) for each in examples])
    return MicroBatch(
        noisy=scheduler.add_noise(latents, noise, timesteps).to(device),
        timesteps=timesteps.to(device),
        target=target(scheduler, latents, noise, timesteps).to(device),
        weight=min_snr_weight(scheduler, timesteps, spec.min_snr_gamma).to(device),
        captions=tuple("" if _drops_caption(key, each, spec.caption_dropout) else captions[each.sample] for each in examples),
    )


def row_losses(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean squared error of each row, (rows,), fp32."""
    return (predicted.float() - target.float()).pow(2).mean(dim=tuple(range(1, predicted.ndim))) * weight


def target(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser is to predict: the noise, or v (Salimans and Ho 2022)."""
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    return noise


def min_snr_weight(scheduler: Any, timesteps: Tensor, gamma: float | None) -> Tensor:
    """Min-SNR weights (Hang et al. 2023, eq. 7; divided by snr + 1 for v-prediction), (batch,).

    For epsilon min(snr, gamma) / snr is written as min(1, gamma / snr): the same, and 1, its limit, where the signal is gone
    (zero terminal SNR: Lin et al. 2024), where the other form is 0 / 0.
    """
    if gamma is None:
        return torch.ones(len(timesteps))
    signal = scheduler.alphas_cumprod[timesteps.cpu()].float()
    snr = signal / (1 - signal)
    if scheduler.config.prediction_type == "v_prediction":
        return torch.clamp(snr, max=gamma) / (snr + 1)
    return torch.clamp(gamma / snr, max=1)


def dropout_seed(key: Key, example: Draw) -> int:
    return int(key.generator(Purpose.ADAPTER_DROPOUT, *example.indices).integers(2**62))


def learning_rate(spec: OptimizationSpec, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant, linear to 0 or half a cosine to 0."""
    if step < spec.lr_warmup_steps:
        return spec.learning_rate * (step + 1) / spec.lr_warmup_steps
    done = (step - spec.lr_warmup_steps) / max(1, spec.max_steps - spec.lr_warmup_steps)
    match spec.lr_scheduler:
        case "constant":
            return spec.learning_rate
        case "linear":
            return spec.learning_rate * (1 - done)
        case "cosine":
            return spec.learning_rate * 0.5 * (1 + float(np.cos(np.pi * done)))


def _normals(key: Key, purpose: Purpose, examples: Sequence[Draw], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.stack([key.generator(purpose, *each.indices).standard_normal(shape, dtype=np.float32) for each in examples]))


def _drops_caption(key: Key, example: Draw, share: float) -> bool:
    return bool(share) and key.generator(Purpose.CAPTION_DROPOUT, *example.indices).random() < share
