"""Flow matching along straight lines: between a picture at time 0 and noise at time 1, the way to go is predicted (Liu et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.keyed import Purpose
from trainer.losses.protocol import Loss
from trainer.objectives.protocol import Noise, Normals


@dataclass(frozen=True)
class Straight:
    """See objectives.protocol.Objective. Times are from 0 to 1, and more often in the middle."""

    loss: Loss

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        return torch.tensor([generator.standard_normal() for generator in generators], dtype=torch.float32).sigmoid()

    def held_out_times(self, number: int) -> list[float]:
        return [(k + 0.5) / number for k in range(number)]

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Noise:
        noise = normals(Purpose.NOISE, shape)
        return Noise(told=noise, added=noise)

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        at = times[:, None, None, None]
        return (1 - at) * latents + at * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return noise - latents

    def weight(self, times: Tensor) -> Tensor:
        return torch.ones(len(times))

    def scales(self, times: Tensor) -> Tensor:
        return torch.ones(len(times))
