"""The facts of an adapter method: which tensors it puts on a layer, what scales them, and what they are called in files."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from math import isqrt, prod
from typing import Protocol, Self

Shape = tuple[int, ...]

INITIALIZATION = "kaiming"  # that a spec has where it names none
LOW_RANK = (INITIALIZATION, "gaussian", "orthogonal")  # those of updates of A and B
PRINCIPAL = ("pissa", "pissa_niter_16")  # of the frozen weight (Meng et al. 2024), by PEFT's names: exactly, or in 16 iterations


class Tensors(Protocol):
    """The tensors that a layer gets, by role."""

    def __call__(self, rank: int, weight: Shape) -> dict[str, Shape]:
        """`weight`: (out, in), or (out, in, height, width) of a convolution."""
        ...


class FactoredTensors(Protocol):
    """The same of a method that cuts a layer's sides into two: how, a factor says."""

    def __call__(self, rank: int, weight: Shape, *, factor: int) -> dict[str, Shape]: ...


class Scaling(Protocol):
    """What an update is multiplied by."""

    def __call__(self, alpha: float, rank: int) -> float: ...


class Made(Protocol):
    """How many numbers are made of a layer's tensors, whatever the rows of a pass, and kept for the backward pass."""

    def __call__(self, rank: int, weight: Shape) -> int: ...


def nothing_made(rank: int, weight: Shape) -> int:
    return 0


class Fusing(StrEnum):
    """Whether the adapters of several layers can be one of those layers as one, whose outputs are theirs one after another."""

    NEVER = "never"
    APART = "apart"  # they cannot, and files name each as diffusers does: readers of LyCORIS' files know both names
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
    initializations: tuple[str, ...] = (INITIALIZATION,)  # that it can begin with; the first is its own
    subtracted: tuple[str, ...] = ()  # those of them whose B A is something, and is subtracted: its files are LoRA of twice the rank
    least_rank: int = 1
    ranks_by_noise: bool = False  # whether a row's rank goes by the noise in it: what a denoiser is told, and a text encoder is not
    has_alpha: bool = True  # whether its scaling goes by one
    fusing: Fusing = Fusing.NEVER
    raised_roles: tuple[str, ...] = ()  # those that LoRA+ gives a higher rate (Hayou et al. 2024)
    adds: bool = True  # whether what it adds is the same on any weight
    reads_weights: bool = False  # of the frozen layer, in numbers as they were trained: what quantised ones have not
    made: Made = nothing_made
    activations: float = 1.0  # kept for the backward pass, as a multiple of those with LoRA
    factored: FactoredTensors | None = None  # the tensors by a factor, where the method takes one
    loaded_by_diffusers: Collection[str] | None = None  # families whose pipelines load its files; None: all

    def cut_by(self, factor: int | None) -> Self:
        """The method with the tensors that it has by this factor; None: by its own."""
        if factor is None or self.factored is None:
            return self
        return replace(self, tensors=partial(self.factored, factor=factor))

    def diffusers_loads(self, family: str | None) -> bool:
        """Whether diffusers loads its files of that family; None: of any."""
        if self.loaded_by_diffusers is None:
            return True
        return bool(self.loaded_by_diffusers) if family is None else family in self.loaded_by_diffusers

    def num_params(self, rank: int, weights: Iterable[Shape]) -> int:
        """Of an adapter on layers with these weights."""
        return sum(prod(shape) for weight in weights for shape in self.tensors(rank, weight).values())


def low_rank(rank: int, weight: Shape) -> dict[str, Shape]:
    """A (rank, in) and B (out, rank); on a convolution A has the kernel, and B is a convolution of 1 x 1 (Hu et al. 2021)."""
    outputs, *inputs = weight
    return {"A": (rank, *inputs), "B": (outputs, rank, *[1] * (len(inputs) - 1))}


def alpha_over_rank(alpha: float, rank: int) -> float:
    return alpha / rank


def two_factors(size: int, factor: int) -> tuple[int, int]:
    """`size` as a product of two, the first no larger: `factor` is one of them where it divides `size`, else the first is the nearest
    below it; -1: as near to each other as they can be. As LyCORIS cuts sides (Yeh et al. 2024)."""
    if factor > 0 and size % factor == 0:
        first, second = sorted((factor, size // factor))
        return first, second
    most = size if factor < 0 else factor
    first = max(each for each in range(1, isqrt(size) + 1) if size % each == 0 and each <= max(most, 1))
    return first, size // first


def is_target(module: str, ends: Iterable[str]) -> bool:
    """Whether one of these is the module's path or the end of it, as PEFT matches them; * in it is any one step of a path."""
    return any(module == end or module.endswith(f".{end}") or ("*" in end and _ends_so(module, end)) for end in ends)


def _ends_so(module: str, end: str) -> bool:
    steps, wanted = module.split("."), end.split(".")
    last = steps[-len(wanted) :]
    return len(last) == len(wanted) and all(want in ("*", step) for want, step in zip(wanted, last, strict=True))
