"""Denoising diffusion: a network predicts the noise, v or the latents themselves of latents noised by a schedule (Ho et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.spec import Spec
from trainer.losses import LOSSES
from trainer.losses.protocol import Loss
from trainer.losses.squared import LOSS as SQUARED
from trainer.objectives.noises import PLAIN, Noises
from trainer.objectives.protocol import Noise, Normals
from trainer.objectives.scales import Scales, scales_of, unscaled
from trainer.objectives.times import ALL_TIMES, TimeShares
from trainer.objectives.weights import Weighting, weighting_of


@dataclass(frozen=True)
class Diffusion:
    """See objectives.protocol.Objective. Times are the schedule's step numbers, whole. `scheduler`: diffusers' DDPMScheduler."""

    scheduler: Any
    shares: TimeShares = ALL_TIMES
    noises: Noises = PLAIN
    weighting: Weighting | None = None
    loss: Loss = SQUARED
    scale: Scales = unscaled

    @classmethod
    def of(cls, scheduler: Any, spec: Spec) -> "Diffusion":
        objective, training = spec.objective, spec.training
        return cls(
            scheduler,
            TimeShares.of(objective),
            Noises.of(objective, training),
            weighting_of(objective, training),
            LOSSES.get(objective.loss),
            scales_of(objective),
        )

    @property
    def num_times(self) -> int:
        return self.scheduler.config.num_train_timesteps

    @property
    def kind(self) -> str:
        """epsilon, v_prediction or sample."""
        return self.scheduler.config.prediction_type

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        if self.shares.is_plain:
            return torch.tensor([int(generator.integers(self.num_times)) for generator in generators])
        return torch.tensor([self._step(self.shares.drawn(generator, shape)) for generator in generators])

    def held_out_times(self, number: int) -> list[float]:
        return [self._step(share) for share in self.shares.spread(number)]

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Noise:
        return self.noises.drawn(normals, shape)

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
        if self.weighting is None:
            return torch.ones(len(times))
        snr = self._snr(times)
        match self.kind:
            case "v_prediction":
                return self.weighting.of_latents(snr) / (snr + 1)
            case "sample":
                return self.weighting.of_latents(snr)
            case _:
                return self.weighting.of_noise(snr)

    def scales(self, times: Tensor) -> Tensor:
        if self.scale is unscaled:
            return torch.ones(len(times))
        return self.scale(times / self.num_times, self._snr(times))

    def _step(self, share: float) -> int:
        return min(int(share * self.num_times), self.num_times - 1)

    def _snr(self, times: Tensor) -> Tensor:
        signal = self.scheduler.alphas_cumprod[times.cpu()].float()
        return signal / (1 - signal)
