"""AdamW over stacked styles: every row with its own rate, moments, step count and clipping.

(Loshchilov and Hutter 2019, algorithm 2; torch's fused kernel, which reads and writes each number once.) A row is a
style's whole adapter, so a style's gradient norm is a row's norm, and nothing of one row enters another.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorafleet.spec import OptimizationSpec
from trainer.adapters.pack import Bank

MOMENTS = ("exp_avg", "exp_avg_sq")


class StyleUpdate(NamedTuple):
    """What the update of a style needs besides its gradient."""

    spec: OptimizationSpec
    learning_rate: float
    steps_done: int


class StackedAdamW(torch.optim.Optimizer):
    """One parameter for each bank: its `flat`, or the part of it that ZeRO has given to this rank (then there is one style)."""

    def __init__(self, banks: Sequence[Bank], *, clips: bool) -> None:
        """`clips`: whether gradients are clipped and checked here. ZeRO's partitions are not whole rows; there DeepSpeed clips."""
        super().__init__([{"params": [bank.flat], "bank": number} for number, bank in enumerate(banks)], {})
        self.clips = clips
        self.updates: list[Sequence[StyleUpdate]] = [[] for _ in banks]  # of each bank's styles, set before each step
        self.finite: list[list[bool]] = [[] for _ in banks]  # whether each style's newest gradient was

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            number, parameter = group["bank"], group["params"][0]
            if parameter.grad is None:
                continue
            state = self.moments_of(parameter)
            stacked = [_as_rows(tensor) for tensor in (parameter, parameter.grad, *(state[key] for key in MOMENTS))]
            norms = [self._update(update, *(rows[slot] for rows in stacked)) for slot, update in enumerate(self.updates[number])]
            self.finite[number] = torch.stack(norms).isfinite().tolist() if norms else []

    def _update(self, update: StyleUpdate, weights: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """Updates one style, each tensor (size,), unless its gradient is not finite. Returns the gradient's norm."""
        norm = torch.linalg.vector_norm(gradient) if self.clips else gradient.new_zeros(())
        most = update.spec.max_grad_norm
        # The kernel divides the gradient by it: the inverse of clip_grad_norm_'s factor.
        divisor = ((norm + 1e-6) / most).clamp(min=1.0) if most else torch.ones_like(norm)
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            [weights],
            [gradient],
            [mean],
            [square],
            [],
            [torch.tensor(update.steps_done + 1.0, device=weights.device)],
            lr=update.learning_rate,
            beta1=update.spec.adam_beta1,
            beta2=update.spec.adam_beta2,
            weight_decay=update.spec.weight_decay,
            eps=update.spec.adam_epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor.reshape(1),
            found_inf=(~norm.isfinite()).float().reshape(1),
        )
        return norm

    def moments_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """AdamW's state of a parameter, made when it is first needed."""
        state = self.state[parameter]
        for key in MOMENTS:
            if key not in state:
                state[key] = torch.zeros_like(parameter)
        return state


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor[None] if tensor.ndim == 1 else tensor
