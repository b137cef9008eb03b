"""AdamW (Loshchilov and Hutter 2019, algorithm 2; torch's fused kernel, which reads and writes each number once)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lorafleet.catalog.optimizers import adamw
from trainer.optimizers.protocol import Clipping, RowOptimizer, StyleUpdate
from trainer.typed_torch import fused_adamw_


class AdamW:
    """See optimizers.protocol.RowOptimizer. Keeps the means of the gradient and of its square."""

    facts = adamw.FACTS

    def state_shapes(self, size: int) -> Mapping[str, tuple[int, ...]]:
        return {"exp_avg": (size,), "exp_avg_sq": (size,)}

    def step(
        self,
        updates: Sequence[StyleUpdate],
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        clippings: Sequence[Clipping],
    ) -> None:
        for update, row, gradient, state, clipping in zip(updates, weights, gradients, states, clippings, strict=True):
            fused_adamw_(
                [row],
                [gradient],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [torch.tensor(update.steps_done + 1.0, device=row.device)],
                lr=update.learning_rate,
                beta1=update.spec.adam_beta1,
                beta2=update.spec.adam_beta2,
                weight_decay=update.spec.weight_decay,
                eps=update.spec.adam_epsilon,
                amsgrad=False,
                maximize=False,
                grad_scale=clipping.divisor.reshape(1),  # the kernel divides the gradient by it
                found_inf=(~clipping.is_finite).float().reshape(1),
            )


OPTIMIZER: RowOptimizer = AdamW()
