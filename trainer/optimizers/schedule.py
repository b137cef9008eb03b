"""The learning rate of each step. The schedules are transformers' and diffusers' own (`optimization.py`), but for the warm-up.

Theirs begins with a step of rate 0, which trains nothing: here step i of n has (i + 1) / n of the peak.
"""

import math
from dataclasses import dataclass

from lorafleet.spec import OptimizationSpec, Spec
from lorafleet.spec_overrides import rate_chains, rate_fields
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


@dataclass(frozen=True)
class Rates:
    """Those of the groups of an adapter's tensors: layers with overrides, then of each the sides of its layers."""

    schedules: tuple[OptimizationSpec, ...]
    ratio: float | None  # of LoRA+
    tokens: OptimizationSpec | None = None  # of new tokens, which come last; None: they have no rate of their own
    token_steps: int = 0  # after which theirs is 0
    are_tokens_alone: bool = False

    @classmethod
    def of(cls, spec: Spec) -> "Rates":
        overrides, training = spec.adapter.overrides, spec.training
        chains = rate_chains(overrides)
        schedules = tuple(training.model_copy(update=rate_fields(overrides, chain)) for chain in chains)
        tokens = None if spec.token_rate is None else training.model_copy(update={"learning_rate": spec.token_rate})
        return cls(schedules, training.lora_plus_ratio, tokens, spec.token_steps, spec.textual_inversion.alone)

    def at(self, step: int) -> tuple[float, ...]:
        """By `adapters.layout.Kind.group_of`; empty: all have the learning rate."""
        if len(self.schedules) == 1 and self.ratio is None and self.tokens is None:
            return ()
        rates = [learning_rate(schedule, step) for schedule in self.schedules]
        sides = rates if self.ratio is None else [rate * side for rate in rates for side in (1, self.ratio)]
        return tuple(sides) if self.tokens is None else (*sides, self.of_tokens(step))

    def told(self, step: int) -> float:
        """The one that is reported: of the adapter, where there is one."""
        return self.of_tokens(step) if self.are_tokens_alone and self.tokens is not None else learning_rate(self.schedules[0], step)

    def of_tokens(self, step: int) -> float:
        """0 where they have none of their own."""
        return learning_rate(self.tokens, step) if self.tokens is not None and step < self.token_steps else 0.0


def _half_a_cosine(done: float) -> float:
    """From 1 to 0 (Loshchilov and Hutter 2017, equation 5)."""
    return 0.5 * (1 + math.cos(math.pi * done))
