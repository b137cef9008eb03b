"""Rectified flow: a network predicts the way from latents to noise along a straight line (Liu et al. 2023; Lipman et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from trainer.objectives.times import ALL_TIMES, Density, Shift, TimeShares
from trainer.objectives.weights import Weighting, weighting_of

NUM_TIMES = 1000  # a time is this many times sigma, the share of noise


@dataclass(frozen=True)
class FlowMatching:
    """See objectives.protocol.Objective. Times are NUM_TIMES times sigma, of which no schedule has whole steps."""

    shares: TimeShares = ALL_TIMES
    noises: Noises = PLAIN
    weighting: Weighting | None = None
    loss: Loss = SQUARED
    scale: Scales = unscaled

    @classmethod
    def of(cls, spec: Spec, density: Density, shift: Shift) -> "FlowMatching":
        """`density` and `shift`: the family's own, where the spec says nothing."""
        objective, training = spec.objective, spec.training
        return cls(
            TimeShares.of(objective, density, shift),
            Noises.of(objective, training),
            weighting_of(objective, training),
            LOSSES.get(objective.loss),
            scales_of(objective),
        )

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        return torch.tensor([NUM_TIMES * self.shares.drawn(generator, shape) for generator in generators], dtype=torch.float32)

    def held_out_times(self, number: int) -> list[float]:
        return [share * NUM_TIMES for share in self.shares.spread(number)]

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Noise:
        return self.noises.drawn(normals, shape)

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        sigmas = _like(times / NUM_TIMES, latents)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return noise - latents

    def weight(self, times: Tensor) -> Tensor:
        if self.weighting is None:
            return torch.ones(len(times))
        sigmas = times / NUM_TIMES
        return self.weighting.of_latents(_snr(sigmas)) * sigmas.pow(2)

    def scales(self, times: Tensor) -> Tensor:
        if self.scale is unscaled:
            return torch.ones(len(times))
        sigmas = times / NUM_TIMES
        return self.scale(sigmas, _snr(sigmas))


def _snr(sigmas: Tensor) -> Tensor:
    return ((1 - sigmas) / sigmas).pow(2)


def _like(rows: Tensor, latents: Tensor) -> Tensor:
    """(rows,) -> (rows, 1, ...)"""
    return rows.reshape(-1, *[1] * (latents.ndim - 1))
