"""The facts of an adapter method: which tensors it puts on a layer, what scales them, and what they are called in files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Protocol

Shape = tuple[int, ...]


class Tensors(Protocol):
    """The tensors that a layer gets, by role."""

    def __call__(self, rank: int, weight: Shape) -> dict[str, Shape]:
        """`weight`: (out, in), or (out, in, height, width) of a convolution."""
        ...


class Scaling(Protocol):
    """What an update is multiplied by."""

    def __call__(self, alpha: float, rank: int) -> float: ...


class Fusing(StrEnum):
    """Whether the adapters of several layers can be one of those layers as one, whose outputs are theirs one after another."""

    NEVER = "never"
    WHOLE = "whole"  # where each of the layers has one
    IN_PART = "in part"  # also where some of them have none


@dataclass(frozen=True, kw_only=True)
class Method:
    """An adapter method. `names`: of each role the end of its tensor's name, in our checkpoints and in diffusers' files."""

    name: str
    title: str  # with its paper
    tensors: Tensors
    scaling: Scaling
    names: Mapping[str, str]
    fusing: Fusing = Fusing.NEVER
    raised_roles: tuple[str, ...] = ()  # those that LoRA+ gives a higher rate (Hayou et al. 2024)
    reads_weights: bool = False  # of the frozen layer, in numbers as they were trained: what quantised ones have not

    def num_params(self, rank: int, weights: Iterable[Shape]) -> int:
        """Of an adapter on layers with these weights."""
        return sum(prod(shape) for weight in weights for shape in self.tensors(rank, weight).values())


def low_rank(rank: int, weight: Shape) -> dict[str, Shape]:
    """A (rank, in) and B (out, rank); on a convolution A has the kernel, and B is a convolution of 1 x 1 (Hu et al. 2021)."""
    outputs, *inputs = weight
    return {"A": (rank, *inputs), "B": (outputs, rank, *[1] * (len(inputs) - 1))}


def alpha_over_rank(alpha: float, rank: int) -> float:
    return alpha / rank


def is_target(module: str, ends: Iterable[str]) -> bool:
    """Whether one of these is the module's path or the end of it, as PEFT matches them."""
    return any(module == end or module.endswith(f".{end}") for end in ends)
