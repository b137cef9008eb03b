"""AdamW (Loshchilov and Hutter 2019, algorithm 2; torch's fused kernel, which reads and writes each number once)."""

from collections.abc import Mapping, Sequence
from math import prod

import torch

from lorafleet.catalog.method import Shape
from lorafleet.catalog.optimizers import adamw
from trainer.optimizers.protocol import Kept, Row, RowOptimizer
from trainer.typed_torch import fused_adamw_


class AdamW:
    """See optimizers.protocol.RowOptimizer. Keeps the means of the gradient and of its square."""

    facts = adamw.FACTS

    def kept(self, shapes: Sequence[Shape]) -> Mapping[str, Kept]:
        each = Kept((sum(map(prod, shapes)),))
        return {"exp_avg": each, "exp_avg_sq": each}

    def step(self, rows: Sequence[Row], shapes: Sequence[Shape]) -> None:
        for update, weights, gradient, state, clipping in rows:
            fused_adamw_(
                [weights],
                [gradient],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [torch.tensor(update.steps_done + 1.0, device=weights.device)],
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
