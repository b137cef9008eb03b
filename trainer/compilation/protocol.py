"""The seam of training.compile: how a training pass goes through a model. Whatever runs without gradients runs eagerly."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from trainer.adapters.bank import ActiveSlots
from trainer.families.protocol import Conditioning

# What a pass predicts, eagerly: see PackModel.forward.
Predict = Callable[[Sequence[ActiveSlots], Tensor, Tensor, Conditioning, Sequence[str]], Tensor]


class Compiled(Protocol):
    """Of one model. Where something of it cannot be compiled, that is said once, and passes run eagerly from then on."""

    def __call__(
        self,
        predict: Predict,
        active: Sequence[ActiveSlots],
        noisy: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        captions: Sequence[str],
    ) -> Tensor:
        """What `predict` gives for these."""
        ...

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        """What a block that is computed anew in the backward pass is computed in: as it is computed at this moment."""
        ...

    def let_go(self) -> None:
        """Its banks are about to go."""
        ...

    def leave(self) -> None:
        """Leaves the model as it was."""
        ...
