"""Schedule-free AdamW (Defazio et al. 2024): averages what it trains, so that no schedule is needed; by pytorch-optimizer."""

from collections.abc import Mapping

from pytorch_optimizer import ScheduleFreeAdamW
from torch import Tensor

from lorafleet.catalog.optimizers import adamw_schedule_free
from trainer.optimizers._library import LibraryOptimizer, adam_options
from trainer.optimizers.protocol import RowOptimizer, StyleUpdate, Tensors


class ScheduleFree(LibraryOptimizer):
    """See optimizers.protocol.Averaging."""

    def evaluated(self, update: StyleUpdate, weights: Tensor, state: Mapping[str, Tensor], tensors: Tensors) -> Tensor:
        averaged = weights.detach().clone()
        optimizer, _ = self.resumed(update, averaged, state, tensors)
        if not isinstance(optimizer, ScheduleFreeAdamW):
            raise TypeError(f"{type(optimizer).__name__} averages nothing")
        optimizer.eval()
        return averaged


OPTIMIZER: RowOptimizer = ScheduleFree(adamw_schedule_free.FACTS, ScheduleFreeAdamW, adam_options)
