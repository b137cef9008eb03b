"""AdamW (Loshchilov and Hutter 2019, algorithm 2; torch's fused kernel, which reads and writes each number once)."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lorafleet.catalog.optimizers import adamw
from trainer.optimizers.protocol import Kept, Row, RowOptimizer, Tensors
from trainer.typed_torch import fused_adamw_

_Parts = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]  # weights, their gradients and both moments


class AdamW:
    """See optimizers.protocol.RowOptimizer. Keeps the means of the gradient and of its square."""

    facts = adamw.FACTS

    def kept(self, tensors: Tensors) -> Mapping[str, Kept]:
        each = Kept((tensors.size,))
        return {"exp_avg": each, "exp_avg_sq": each}

    def step(self, rows: Sequence[Row], tensors: Tensors) -> None:
        for row in rows:
            update, clipping = row.update, row.clipping
            for rate, (weights, gradients, means, squares) in _by_rate(row, tensors):
                fused_adamw_(
                    weights,
                    gradients,
                    means,
                    squares,
                    [],
                    [row.number] * len(weights),
                    lr=rate,
                    beta1=update.spec.adam_beta1,
                    beta2=update.spec.adam_beta2,
                    weight_decay=update.spec.weight_decay,
                    eps=update.spec.adam_epsilon,
                    amsgrad=False,
                    maximize=False,
                    grad_scale=clipping.divisor.reshape(1),  # the kernel divides the gradient by it
                    found_inf=clipping.found_inf.reshape(1),
                )


def _by_rate(row: Row, tensors: Tensors) -> Iterator[tuple[float, _Parts]]:
    """What has one rate, together: the whole row as a single tensor, where it has no other."""
    whole = (row.weights, row.gradient, row.state["exp_avg"], row.state["exp_avg_sq"])
    if not row.update.rates:
        weights, gradient, mean, square = whole
        yield row.update.learning_rate, ([weights], [gradient], [mean], [square])
        return
    weights, gradient, mean, square = (torch.split(each, tensors.sizes) for each in whole)
    for group, numbers in tensors.by_group.items():
        parts = ([each[number] for number in numbers] for each in (weights, gradient, mean, square))
        its_weights, its_gradients, its_means, its_squares = parts
        yield row.update.rate(group), (its_weights, its_gradients, its_means, its_squares)


OPTIMIZER: RowOptimizer = AdamW()
