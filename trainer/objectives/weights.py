"""How errors at different times count against each other, by the signal-to-noise ratio: written once, for every kind of prediction.

An error of the latents is an error of the noise times sqrt(snr), of v times sqrt(snr + 1), of the flow over its share of noise:
what a weight is on one of them, it is on the others (Salimans and Ho 2022, appendix D; Esser et al. 2024, section 2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorafleet.spec import ObjectiveSpec, OptimizationSpec

Ratios = Callable[[Tensor], Tensor]  # snr (rows,) -> (rows,)


@dataclass(frozen=True)
class Weighting:
    """Of squared errors. Two forms of one function, because either is 0 / 0 where the other is not."""

    of_latents: Ratios
    of_noise: Ratios  # the same over snr


def min_snr(gamma: float) -> Weighting:
    """Where the signal is clear no more than gamma (Hang et al. 2023, eq. 7).

    min(snr, gamma) / snr is written as min(1, gamma / snr): the same, and 1, its limit, where the signal is gone (zero terminal SNR:
    Lin et al. 2024).
    """
    return Weighting(lambda snr: torch.clamp(snr, max=gamma), lambda snr: torch.clamp(gamma / snr, max=1))


# As the noise is trained without a weight (Ho et al. 2020, eq. 14), whatever is predicted.
SNR = Weighting(lambda snr: snr, torch.ones_like)

# Between those of the noise and of the latents (Yu et al. 2024, eq. 10): 1 / sqrt(snr) on the noise.
DEBIASED = Weighting(torch.sqrt, torch.rsqrt)


def weighting_of(objective: ObjectiveSpec, training: OptimizationSpec) -> Weighting | None:
    """None: every row counts the same."""
    if training.min_snr_gamma is not None:
        return min_snr(training.min_snr_gamma)
    match objective.weighting:
        case "snr":
            return SNR
        case "debiased":
            return DEBIASED
        case "none":
            return None
