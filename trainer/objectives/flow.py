"""Rectified flow: a network predicts the way from latents to noise along a straight line (Liu et al. 2023; Lipman et al. 2023)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.keyed import Purpose
from trainer.losses.protocol import Loss
from trainer.losses.squared import squared
from trainer.objectives.protocol import Normals

NUM_TIMES = 1000  # a time is this many times sigma, the share of noise
LEAST_SIGMA = 1e-3  # of draws: the last step of a thousand, beyond which no sampler goes

Density = Callable[[np.random.Generator], float]  # draws a sigma between 0 and 1
Shift = Callable[[tuple[int, ...]], float]  # shape of a row's latents, (channels, height, width) -> the shift of its times


def uniform(generator: np.random.Generator) -> float:
    return generator.random()


def logit_normal(generator: np.random.Generator) -> float:
    """The sigmoid of a standard normal: most draws are in the middle (Esser et al. 2024, eq. 19)."""
    return 1 / (1 + exp(-generator.standard_normal()))


def unshifted(shape: tuple[int, ...]) -> float:
    return 1.0


def constant(shift: float) -> Shift:
    """The same for pictures of all sizes."""
    return lambda shape: shift


def by_tokens(config: Mapping[str, Any], patch: int) -> Shift:
    """Grows with the number of a picture's tokens, squares of `patch` latents: exp of a line through two points, as FLUX.1 samples.

    `config`: of diffusers' FlowMatchEulerDiscreteScheduler, which gives the points.
    """
    least, most = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (most - least)

    def shift(shape: tuple[int, ...]) -> float:
        num_tokens = (shape[-2] // patch) * (shape[-1] // patch)
        return exp(config["base_shift"] + slope * (num_tokens - least))

    return shift


@dataclass(frozen=True)
class FlowMatching:
    """See objectives.protocol.Objective. Times are NUM_TIMES times sigma, of which no schedule has whole steps."""

    density: Density = uniform
    shift: Shift = unshifted
    loss: Loss = squared

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        """Shifted as samplers do: pictures with more latents need more noise to be as unclear (Esser et al. 2024, eq. 23)."""
        shift = self.shift(shape)
        drawn = [max(self.density(generator), LEAST_SIGMA) for generator in generators]
        return torch.tensor([NUM_TIMES * shift * sigma / (1 + (shift - 1) * sigma) for sigma in drawn], dtype=torch.float32)

    def held_out_times(self, number: int) -> list[float]:
        return [(k + 0.5) / number * NUM_TIMES for k in range(number)]

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Tensor:
        return normals(Purpose.NOISE, shape)

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        sigmas = _like(times / NUM_TIMES, latents)
        return (1 - sigmas) * latents + sigmas * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return noise - latents

    def weight(self, times: Tensor) -> Tensor:
        return torch.ones(len(times))


def _like(rows: Tensor, latents: Tensor) -> Tensor:
    """(rows,) -> (rows, 1, ...)"""
    return rows.reshape(-1, *[1] * (latents.ndim - 1))
