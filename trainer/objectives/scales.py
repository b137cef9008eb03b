"""From which size on an error is an outlier, by its time: the schedules of a Huber loss (Khrapov et al. 2024, section 3.2)."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from lorafleet.spec import ObjectiveSpec
from lorafleet.spec_sections import HUBER_DELTA, HUBER_SCHEDULE

Scales = Callable[[Tensor, Tensor], Tensor]  # shares of noise (rows,), snr (rows,) -> (rows,)


def scales_of(spec: ObjectiveSpec) -> Scales:
    delta = HUBER_DELTA if spec.huber_delta is None else spec.huber_delta
    match spec.huber_schedule or HUBER_SCHEDULE:
        case "constant":
            return lambda shares, snr: torch.full_like(shares, delta)
        case "exponential":  # 1 without noise, delta where there is nothing else
            return lambda shares, snr: torch.exp(log(delta) * shares)
        case "snr":  # 1 without noise, delta where there is nothing else, by the noise over the signal
            return lambda shares, snr: (1 - delta) / (1 + snr.rsqrt()).pow(2) + delta


def unscaled(shares: Tensor, snr: Tensor) -> Tensor:
    return torch.ones_like(shares)
