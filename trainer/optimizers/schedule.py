"""The learning rate of each step."""

import math

from lorafleet.spec import OptimizationSpec


def learning_rate(spec: OptimizationSpec, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant, linear to 0 or half a cosine to 0."""
    if step < spec.lr_warmup_steps:
        return spec.learning_rate * (step + 1) / spec.lr_warmup_steps
    done = (step - spec.lr_warmup_steps) / max(1, spec.max_steps - spec.lr_warmup_steps)
    match spec.lr_scheduler:
        case "constant":
            return spec.learning_rate
        case "linear":
            return spec.learning_rate * (1 - done)
        case "cosine":
            return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
