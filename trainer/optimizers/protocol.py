"""The seam of an optimizer: how one style's row of numbers is updated. A new optimizer is one file beside adamw.py, and its facts."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lorafleet.catalog import Optimizer as OptimizerFacts
from lorafleet.catalog.method import Shape
from lorafleet.spec import OptimizationSpec


class Tensors(NamedTuple):
    """The tensors of a row, one after another. Where ZeRO cuts rows, which only elementwise optimizers allow, it is a single (size,)."""

    shapes: tuple[Shape, ...]
    groups: tuple[int, ...]  # of each the number of its rate among an update's

    @property
    def sizes(self) -> list[int]:
        return [prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def by_group(self) -> dict[int, list[int]]:
        """Numbers of the tensors of each group, in the order of the groups."""
        return {group: [number for number, its in enumerate(self.groups) if its == group] for group in sorted({*self.groups})}


class StyleUpdate(NamedTuple):
    """What the update of a style needs besides its gradient."""

    spec: OptimizationSpec
    learning_rate: float
    steps_done: int
    loss_scale: float = 1.0  # by which its gradient is too large
    gives_average: bool = False  # it is judged by its moving average, not by what it trains
    rates: tuple[float, ...] = ()  # of each group of tensors; empty: all have the learning rate

    keeps_deviation: bool = False  # of the vectors of new tokens, which are trained in this step

    def rate(self, group: int) -> float:
        return self.rates[group] if self.rates else self.learning_rate


class Clipping(NamedTuple):
    """What clipping found out about a gradient; all are scalars on its device."""

    divisor: Tensor  # by which the gradient is to be divided, at least its loss scale
    is_finite: Tensor  # False: the row must not change
    found_inf: Tensor  # the same as fused kernels take it: 1.0 where it must not


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
    number: Tensor  # of the step that this is for the row, from 1: a scalar on its device

    @property
    def clipped(self) -> Tensor:
        """The gradient as it is to be followed; for an optimizer that does not divide by itself."""
        return self.gradient / self.clipping.divisor


class RowOptimizer(Protocol):
    """Stateless: what it keeps of a row comes back in as an argument. One whose facts say that it has one rate goes by no other."""

    facts: OptimizerFacts

    def kept(self, tensors: Tensors) -> Mapping[str, Kept]:
        """What it keeps of a row, by name, as zeros at first. Of each number it is (size,), and elementwise ones keep nothing else."""
        ...

    def step(self, rows: Sequence[Row], tensors: Tensors) -> None:
        """Updates rows of one bank in place. A row whose gradient is not finite, and its state, stay as they are."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """What an optimizer has beside, if what it trains is not what it has learned."""

    def evaluated(self, update: StyleUpdate, weights: Tensor, state: Mapping[str, Tensor], tensors: Tensors) -> Tensor:
        """The weights that are drawn with and exported, (size,)."""
        ...
