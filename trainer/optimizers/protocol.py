"""The seam of an optimizer: how one style's row of numbers is updated. A new optimizer is one file beside adamw.py, and its facts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from lorafleet.catalog import Optimizer as OptimizerFacts
from lorafleet.spec import OptimizationSpec


class StyleUpdate(NamedTuple):
    """What the update of a style needs besides its gradient."""

    spec: OptimizationSpec
    learning_rate: float
    steps_done: int


class Clipping(NamedTuple):
    """What clipping found out about a gradient; both are scalars on its device."""

    divisor: Tensor  # by which the gradient is to be divided, at least 1
    is_finite: Tensor  # False: the row must not change


class RowOptimizer(Protocol):
    """Stateless: what it keeps of a row comes back in as an argument."""

    facts: OptimizerFacts

    def state_shapes(self, size: int) -> Mapping[str, tuple[int, ...]]:
        """What it keeps of a row of that many numbers, by name, as zeros at first. Elementwise ones keep (size,) only."""
        ...

    def step(
        self,
        updates: Sequence[StyleUpdate],
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        clippings: Sequence[Clipping],
    ) -> None:
        """Updates rows of one bank in place, each (size,). A row whose gradient is not finite, and its state, stay as they are."""
        ...


def clipped(gradient: Tensor, clipping: Clipping) -> Tensor:
    """The gradient as it is to be followed; for an optimizer that does not divide by itself."""
    return gradient / clipping.divisor
