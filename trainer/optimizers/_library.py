"""Optimizers of libraries, over a row's own tensors: each sees views with the tensors' shapes, so that factored ones are right.

A library's optimizer is made anew for each step, around what was kept of the row: nothing of a style lives outside its row, which may
move to another slot, be saved, and go on elsewhere. What it costs is a read of some numbers by the host in each step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorafleet.catalog import Optimizer as OptimizerFacts
from lorafleet.catalog.method import Shape
from lorafleet.spec import OptimizationSpec
from trainer.optimizers.protocol import Kept, Row, StyleUpdate, Tensors
from trainer.typed_torch import numbers

NUMBERS = "numbers"  # the key of what it keeps that is no tensor: whether it has begun, its groups' numbers, its tensors'
_PROBE = StyleUpdate(OptimizationSpec(), 1e-3, 0)

Options = Callable[[StyleUpdate], dict[str, Any]]
Make = Callable[..., torch.optim.Optimizer]  # (tensors, **options)
Constants = Callable[[Any, Mapping[str, Any]], dict[str, Tensor]]  # (optimizer, a tensor's state) -> what belongs to it and is not kept


class _Stored(NamedTuple):
    """Where one tensor of a library's state lies."""

    name: str  # the library's
    key: str  # ours
    start: int
    shape: Shape


class _Number(NamedTuple):
    """One number of a library's state."""

    name: str
    group: int  # of the library's, which are those of tensors of one rate
    piece: int | None  # None: of the group
    like: Any  # a value of its type


class _Places(NamedTuple):
    """What a library keeps of tensors of some shapes, and where we do."""

    by_group: Mapping[int, Sequence[int]]
    pieces: tuple[tuple[_Stored, ...], ...]
    numbers: tuple[_Number, ...]
    kept: Mapping[str, Kept]


def no_constants(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {}


class LibraryOptimizer:
    """See optimizers.protocol.RowOptimizer."""

    def __init__(
        self, facts: OptimizerFacts, make: Make, options: Options, *, constants: Constants = no_constants, keeps_numbers: bool = True
    ) -> None:
        """`options`: what the library is told in each step. `keeps_numbers`: False where its state is tensors alone that begin as zeros."""
        self.facts, self._make, self._options, self._constants, self._keeps_numbers = facts, make, options, constants, keeps_numbers
        self._places = lru_cache(maxsize=64)(self._found)  # asked for in each step

    def kept(self, tensors: Tensors) -> Mapping[str, Kept]:
        return self._places(tensors).kept

    def step(self, rows: Sequence[Row], tensors: Tensors) -> None:
        places = self._places(tensors)
        for row in rows:
            if not bool(row.clipping.is_finite):
                continue
            pieces = list(_pieces(row.weights, tensors.shapes))
            for piece, gradient in zip(pieces, _pieces(row.clipped, tensors.shapes), strict=True):
                piece.grad = gradient
            optimizer = self._resumed(row.update, pieces, row.state, places)
            optimizer.step()
            self._keep(optimizer, pieces, row.state, places)

    def resumed(
        self, update: StyleUpdate, weights: Tensor, state: Mapping[str, Tensor], tensors: Tensors
    ) -> tuple[torch.optim.Optimizer, list[Tensor]]:
        """The library's optimizer as it was after the last step, and its tensors: views of `weights`."""
        pieces = list(_pieces(weights, tensors.shapes))
        return self._resumed(update, pieces, state, self._places(tensors)), pieces

    def _made(self, update: StyleUpdate, tensors: Sequence[Tensor], by_group: Mapping[int, Sequence[int]]) -> torch.optim.Optimizer:
        options = self._options(update)
        if len(by_group) == 1:
            return self._make(tensors, **{**options, "lr": update.rate(*by_group)})
        parts = [{"params": [tensors[number] for number in its], "lr": update.rate(group)} for group, its in by_group.items()]
        return self._make(parts, **options)

    def _resumed(
        self, update: StyleUpdate, tensors: Sequence[Tensor], state: Mapping[str, Tensor], places: _Places
    ) -> torch.optim.Optimizer:
        optimizer = self._made(update, tensors, places.by_group)
        kept = numbers(state[NUMBERS]) if self._keeps_numbers else []
        if kept and not kept[0]:
            return optimizer  # its first step: what it begins with is its own
        for tensor, stored in zip(tensors, places.pieces, strict=True):
            mine = {each.name: _view(state[each.key], each) for each in stored}
            optimizer.state[tensor].update({**mine, **self._constants(optimizer, mine)})
        for number, value in zip(places.numbers, kept[1:], strict=True):
            holder = optimizer.param_groups[number.group] if number.piece is None else optimizer.state[tensors[number.piece]]
            holder[number.name] = _as(number.like, value)
        return optimizer

    def _keep(self, optimizer: torch.optim.Optimizer, tensors: Sequence[Tensor], state: Mapping[str, Tensor], places: _Places) -> None:
        """What it changed in place is kept already."""
        for tensor, stored in zip(tensors, places.pieces, strict=True):
            for each in stored:
                found, place = optimizer.state[tensor][each.name], _view(state[each.key], each)
                if found.data_ptr() != place.data_ptr():
                    place.copy_(found)
        if self._keeps_numbers:
            values = [1.0]
            for number in places.numbers:
                holder = optimizer.param_groups[number.group] if number.piece is None else optimizer.state[tensors[number.piece]]
                values.append(float(holder.get(number.name, 0.0)))
            state[NUMBERS].copy_(torch.tensor(values, dtype=torch.float64))

    def _found(self, row: Tensors) -> _Places:
        """Asks the library itself, by one step on tensors that are thrown away."""
        tensors = [torch.zeros(shape) for shape in row.shapes]
        for tensor in tensors:
            tensor.grad = torch.ones_like(tensor)
        optimizer = self._made(_PROBE, tensors, row.by_group)
        optimizer.step()
        sizes: dict[str, int] = {}
        dtypes: dict[str, torch.dtype] = {}
        pieces: list[tuple[_Stored, ...]] = []
        given = {"params", "lr", *self._options(_PROBE)}
        found = [
            _Number(name, group, None, value)
            for group, its in enumerate(optimizer.param_groups)
            for name, value in its.items()
            if name not in given and _is_number(value)
        ]
        for piece, tensor in enumerate(tensors):
            state = optimizer.state[tensor]
            constant, stored = self._constants(optimizer, state), list[_Stored]()
            for name, value in state.items():
                if _is_number(value):
                    found.append(_Number(name, 0, piece, value))
                elif isinstance(value, Tensor) and name not in constant:
                    key = name if value.dtype == torch.float32 else f"{name}_{str(value.dtype).removeprefix('torch.')}"
                    stored.append(_Stored(name, key, sizes.get(key, 0), tuple(value.shape)))
                    sizes[key], dtypes[key] = sizes.get(key, 0) + value.numel(), value.dtype
            pieces.append(tuple(stored))
        kept = {key: Kept((size,), dtypes[key]) for key, size in sizes.items()}
        if self._keeps_numbers:
            kept[NUMBERS] = Kept((1 + len(found),), torch.float64)
        return _Places(row.by_group, tuple(pieces), tuple(found) if self._keeps_numbers else (), kept)


def adam_options(update: StyleUpdate) -> dict[str, Any]:
    """Of optimizers that go by all of a spec's `adam_` fields."""
    spec = update.spec
    betas = (spec.adam_beta1, spec.adam_beta2)
    return {"lr": update.learning_rate, "betas": betas, "eps": spec.adam_epsilon, "weight_decay": spec.weight_decay}


def _pieces(row: Tensor, shapes: Sequence[Shape]) -> Iterator[Tensor]:
    """Views of a row as its tensors, apart from any graph."""
    parts = torch.split(row.detach(), [prod(shape) for shape in shapes])
    return (part.view(shape) for part, shape in zip(parts, shapes, strict=True))


def _view(kept: Tensor, stored: _Stored) -> Tensor:
    return kept[stored.start : stored.start + prod(stored.shape)].view(stored.shape)


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 or value.shape == (1,)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as(like: Any, value: float) -> Any:
    """`value` as the library has it: whole numbers, and what it reads from tensors, stay such."""
    if isinstance(like, Tensor):
        return torch.full_like(like, value)
    return type(like)(value)
