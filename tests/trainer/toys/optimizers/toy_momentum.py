"""Gradient descent with momentum, and without weight decay."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from tests.trainer.toys.catalog.optimizers.toy_momentum import FACTS
from trainer.optimizers.protocol import Clipping, RowOptimizer, StyleUpdate, clipped


class Momentum:
    """See optimizers.protocol.RowOptimizer."""

    facts = FACTS

    def state_shapes(self, size: int) -> Mapping[str, tuple[int, ...]]:
        return {"momentum": (size,)}

    def step(
        self,
        updates: Sequence[StyleUpdate],
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        clippings: Sequence[Clipping],
    ) -> None:
        for update, row, gradient, state, clipping in zip(updates, weights, gradients, states, clippings, strict=True):
            if not bool(clipping.is_finite):
                continue
            state["momentum"].mul_(update.spec.adam_beta1).add_(clipped(gradient, clipping))
            row.add_(state["momentum"], alpha=-update.learning_rate)


OPTIMIZER: RowOptimizer = Momentum()
