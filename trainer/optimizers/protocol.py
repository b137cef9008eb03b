"""The seam of an optimizer: how one style's row of numbers is updated. A new optimizer is one file beside adamw.py, and its facts."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lorafleet.catalog import Optimizer as OptimizerFacts
from lorafleet.catalog.method import Shape
from lorafleet.spec import OptimizationSpec


class StyleUpdate(NamedTuple):
    """What the update of a style needs besides its gradient."""

    spec: OptimizationSpec
    learning_rate: float
    steps_done: int
    loss_scale: float = 1.0  # by which its gradient is too large
    gives_average: bool = False  # it is judged by its moving average, not by what it trains


class Clipping(NamedTuple):
    """What clipping found out about a gradient; both are scalars on its device."""

    divisor: Tensor  # by which the gradient is to be divided, at least its loss scale
    is_finite: Tensor  # False: the row must not change


class Kept(NamedTuple):
    """A tensor that is kept of a row."""

    shape: Shape
    dtype: torch.dtype = torch.float32


class Row(NamedTuple):
    """One style's numbers; tensors are views of what all rows of a bank are kept in."""

    update: StyleUpdate
    weights: Tensor  # (size,): its tensors one after another
    gradient: Tensor  # (size,)
    state: Mapping[str, Tensor]  # by the names, and of the shapes, that `kept` says
    clipping: Clipping

    @property
    def clipped(self) -> Tensor:
        """The gradient as it is to be followed; for an optimizer that does not divide by itself."""
        return self.gradient / self.clipping.divisor


class RowOptimizer(Protocol):
    """Stateless: what it keeps of a row comes back in as an argument.

    `shapes`: of the row's tensors. Where ZeRO cuts rows, which only those that are elementwise allow, it is a single (size,).
    """

    facts: OptimizerFacts

    def kept(self, shapes: Sequence[Shape]) -> Mapping[str, Kept]:
        """What it keeps of a row, by name, as zeros at first. Of each number it is (size,), and elementwise ones keep nothing else."""
        ...

    def step(self, rows: Sequence[Row], shapes: Sequence[Shape]) -> None:
        """Updates rows of one bank in place. A row whose gradient is not finite, and its state, stay as they are."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """What an optimizer has beside, if what it trains is not what it has learned."""

    def evaluated(self, update: StyleUpdate, weights: Tensor, state: Mapping[str, Tensor], shapes: Sequence[Shape]) -> Tensor:
        """The weights that are drawn with and exported, (size,)."""
        ...
