"""What is drawn as noise, and what of it the latents get."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lorafleet.spec import ObjectiveSpec, OptimizationSpec
from trainer.keyed import Purpose
from trainer.objectives.protocol import Noise, Normals


@dataclass(frozen=True)
class Noises:
    """A style's noise. Nothing of it: independent normals, alike in the latents and in what is to be told."""

    offset: float = 0.0
    pyramid_discount: float = 0.0
    perturbation: float = 0.0

    @classmethod
    def of(cls, objective: ObjectiveSpec, training: OptimizationSpec) -> "Noises":
        return cls(training.noise_offset, objective.pyramid_noise_discount, objective.input_perturbation)

    def drawn(self, normals: Normals, shape: tuple[int, ...]) -> Noise:
        """Input perturbation puts more noise into the latents than is to be told (Ning et al. 2023, algorithm 1)."""
        noise = normals(Purpose.NOISE, shape)
        if self.offset:
            noise = noise + self.offset * normals(Purpose.NOISE_OFFSET, (shape[0], *[1] * (len(shape) - 1)))
        if self.pyramid_discount:
            noise = _pyramid(noise, normals, self.pyramid_discount)
        if not self.perturbation:
            return Noise(noise, noise)
        return Noise(noise, noise + self.perturbation * normals(Purpose.INPUT_PERTURBATION, shape))


PLAIN = Noises()


class _Level(NamedTuple):
    channels: int
    height: int
    width: int


def _pyramid(noise: Tensor, normals: Normals, discount: float) -> Tensor:
    """Noise of half the sides, of a quarter, and so on, each times `discount` once more (Whitaker 2023, multi-resolution noise).

    Each row is brought back to a deviation of 1 by itself, where the source does it with a batch.
    """
    channels, height, width = noise.shape[1:]
    levels = _levels(channels, height, width)
    drawn, start = normals(Purpose.PYRAMID_NOISE, (sum(map(prod, levels)),)), 0
    for power, level in enumerate(levels, start=1):
        coarse = drawn[:, start : start + prod(level)].reshape(-1, *level)
        noise = noise + discount**power * F.interpolate(coarse, size=(height, width), mode="bilinear")
        start += prod(level)
    return noise / noise.flatten(1).std(dim=1).reshape(-1, 1, 1, 1)


def _levels(channels: int, height: int, width: int) -> list[_Level]:
    """Until a side is a single latent."""
    levels: list[_Level] = []
    while min(height, width) > 1:
        height, width = height // 2, width // 2
        levels.append(_Level(channels, height, width))
    return levels
