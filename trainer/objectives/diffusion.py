"""Denoising diffusion: a network predicts the noise, v or the latents themselves of latents noised by a schedule (Ho et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.spec import OptimizationSpec
from trainer.keyed import Purpose
from trainer.losses.protocol import Loss
from trainer.losses.squared import squared
from trainer.objectives.protocol import Normals


@dataclass(frozen=True)
class Diffusion:
    """See objectives.protocol.Objective. Times are the schedule's step numbers, whole. `scheduler`: diffusers' DDPMScheduler."""

    scheduler: Any
    noise_offset: float = 0.0
    min_snr_gamma: float | None = None
    loss: Loss = squared

    @classmethod
    def of(cls, scheduler: Any, spec: OptimizationSpec) -> "Diffusion":
        return cls(scheduler, spec.noise_offset, spec.min_snr_gamma)

    @property
    def num_times(self) -> int:
        return self.scheduler.config.num_train_timesteps

    @property
    def kind(self) -> str:
        """epsilon, v_prediction or sample."""
        return self.scheduler.config.prediction_type

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        return torch.tensor([int(generator.integers(self.num_times)) for generator in generators])

    def held_out_times(self, number: int) -> list[float]:
        return [int((k + 0.5) / number * self.num_times) for k in range(number)]

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Tensor:
        """Offset noise shifts each channel as a whole (Guttenberg 2023)."""
        noise = normals(Purpose.NOISE, shape)
        if not self.noise_offset:
            return noise
        return noise + self.noise_offset * normals(Purpose.NOISE_OFFSET, (shape[0], *[1] * (len(shape) - 1)))

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return self.scheduler.add_noise(latents, noise, times)

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """v: Salimans and Ho 2022."""
        match self.kind:
            case "v_prediction":
                return self.scheduler.get_velocity(latents, noise, times)
            case "sample":
                return latents
            case _:
                return noise

    def weight(self, times: Tensor) -> Tensor:
        """Min-SNR weights (Hang et al. 2023, eq. 7; divided by snr + 1 for v-prediction).

        For epsilon min(snr, gamma) / snr is written as min(1, gamma / snr): the same, and 1, its limit, where the signal is gone
        (zero terminal SNR: Lin et al. 2024), where the other form is 0 / 0.
        """
        gamma = self.min_snr_gamma
        if gamma is None:
            return torch.ones(len(times))
        signal = self.scheduler.alphas_cumprod[times.cpu()].float()
        snr = signal / (1 - signal)
        match self.kind:
            case "v_prediction":
                return torch.clamp(snr, max=gamma) / (snr + 1)
            case "sample":
                return torch.clamp(snr, max=gamma)
            case _:
                return torch.clamp(gamma / snr, max=1)
