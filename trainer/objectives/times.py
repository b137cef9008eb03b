"""Which times an objective draws: shares of the way from latents to noise, spread by a density, moved by a shift, within a range.

A share is 0 where there is no noise and 1 where there is nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from lorafleet.spec import ObjectiveSpec

LEAST_SHARE = 1e-3  # of draws: the last step of a thousand, beyond which no sampler goes

Density = Callable[[np.random.Generator], float]  # draws a share
Shift = Callable[[tuple[int, ...]], float]  # shape of a row's latents, (channels, height, width) -> the shift of its times


def uniform(generator: np.random.Generator) -> float:
    return generator.random()


def logit_normal(generator: np.random.Generator) -> float:
    """The sigmoid of a standard normal: most draws are in the middle (Esser et al. 2024, eq. 19)."""
    return 1 / (1 + exp(-generator.standard_normal()))


def logit_normal_of(mean: float, deviation: float) -> Density:
    """The same of another normal: a mean over 0 draws more noise."""
    return lambda generator: 1 / (1 + exp(-(mean + deviation * generator.standard_normal())))


def cubic(generator: np.random.Generator) -> float:
    """1 - u^3: most draws have much noise, where a picture's structure and colours are decided (Mou et al. 2023, section 3.4)."""
    return 1 - generator.random() ** 3


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
class TimeShares:
    """The shares that a style's times are drawn from, and those that its held-out loss is taken at."""

    density: Density = uniform
    shift: Shift = unshifted
    least: float = 0.0
    most: float = 1.0

    @classmethod
    def of(cls, spec: ObjectiveSpec, density: Density = uniform, shift: Shift = unshifted) -> "TimeShares":
        """What the spec says, and the family's own `density` and `shift` where it says nothing."""
        return cls(_density(spec, density), shift if spec.time_shift is None else constant(spec.time_shift), spec.min_time, spec.max_time)

    @property
    def is_plain(self) -> bool:
        """Whether all times are alike."""
        return self == ALL_TIMES

    def drawn(self, generator: np.random.Generator, shape: tuple[int, ...]) -> float:
        """Shifted as samplers do: pictures with more latents need more noise to be as unclear (Esser et al. 2024, eq. 23)."""
        shift = self.shift(shape)
        share = max(self.density(generator), LEAST_SHARE)
        return self._within(shift * share / (1 + (shift - 1) * share))

    def spread(self, number: int) -> list[float]:
        """So many over the range, evenly."""
        return [self._within((k + 0.5) / number) for k in range(number)]

    def _within(self, share: float) -> float:
        return self.least + (self.most - self.least) * share


ALL_TIMES = TimeShares()


def _density(spec: ObjectiveSpec, own: Density) -> Density:
    match spec.time_density:
        case "uniform":
            return uniform
        case "cubic":
            return cubic
        case "logit_normal":
            return logit_normal_of(spec.time_mean or 0.0, spec.time_deviation or 1.0)
        case None:
            return own
