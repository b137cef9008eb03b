"""Gradient descent with momentum, and without weight decay."""

from collections.abc import Mapping, Sequence

from tests.trainer.toys.catalog.optimizers.toy_momentum import FACTS
from trainer.optimizers.protocol import Kept, Row, RowOptimizer, Tensors


class Momentum:
    """See optimizers.protocol.RowOptimizer."""

    facts = FACTS

    def kept(self, tensors: Tensors) -> Mapping[str, Kept]:
        return {"momentum": Kept((tensors.size,))}

    def step(self, rows: Sequence[Row], tensors: Tensors) -> None:
        for row in rows:
            if bool(row.clipping.is_finite):
                row.state["momentum"].mul_(row.update.spec.adam_beta1).add_(row.clipped)
                row.weights.add_(row.state["momentum"], alpha=-row.update.learning_rate)


OPTIMIZER: RowOptimizer = Momentum()
