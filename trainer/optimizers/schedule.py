"""The learning rate of each step. The schedules are transformers' and diffusers' own (`optimization.py`), but for the warm-up.

Theirs begins with a step of rate 0, which trains nothing: here step i of n has (i + 1) / n of the peak.
"""

import math

from lorafleet.spec import OptimizationSpec, Spec
from lorafleet.spec_sections import LR_END


def learning_rate(spec: OptimizationSpec, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up to the peak, then what the schedule makes of it."""
    if step < spec.lr_warmup_steps:
        return spec.learning_rate * (step + 1) / spec.lr_warmup_steps
    done = (step - spec.lr_warmup_steps) / max(1, spec.max_steps - spec.lr_warmup_steps)
    match spec.lr_scheduler:
        case "constant":
            return spec.learning_rate
        case "linear":
            return spec.learning_rate * (1 - done)
        case "cosine":
            return spec.learning_rate * _half_a_cosine(done)
        case "cosine_with_restarts":
            return spec.learning_rate * (_half_a_cosine((spec.lr_cycles or 1) * done % 1.0) if done < 1 else 0.0)
        case "polynomial":
            end = LR_END if spec.lr_end is None else spec.lr_end
            return (spec.learning_rate - end) * (1 - done) ** (spec.lr_power or 1.0) + end


def group_rates(spec: Spec, step: int) -> tuple[float, ...]:
    """Of each group of an adapter's tensors (adapters.layout); empty: all have the learning rate."""
    rate, ratio = learning_rate(spec.training, step), spec.training.lora_plus_ratio
    return () if ratio is None else (rate, rate * ratio)


def _half_a_cosine(done: float) -> float:
    """From 1 to 0 (Loshchilov and Hutter 2017, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * done))
