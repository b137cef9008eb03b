"""How a transformer lies in a file of the code that it was published with: which rows of which tensor make each of diffusers'. Pure.

Layers of diffusers' that are one layer there lie in it one after another; of a few, the halves are exchanged. Modules are named, ours and
theirs: a tensor is its module's name and an end, `weight` or `bias`.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lorafleet.catalog.method import Shape
from lorafleet.catalog.part import Names
from lorafleet.spec_words import is_module_name

MOST_BLOCKS = 64  # of a list; the published ones have 60 at most
_ENDS = {"scale": "weight"}  # of norms in the code of FLUX
_NUMBERED = re.compile(r"(.+?)\.(\d+)(?:\.(.+))?")


class Misshapen(ValueError):
    """Why tensors are none of such a transformer, as the end of a sentence whose subject is the file."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One of diffusers' tensors, as it lies in a file."""

    source: str  # the tensor's name there
    shape: Shape
    ranges: tuple[tuple[int, int], ...] = ()  # along the first dimension, one after another; none: all of it


def nothing_swapped(modules: Collection[str]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Table:
    """Modules by tables of ours to theirs. `blocks`: our list of blocks -> its name there, and the modules in each block."""

    around: Names
    blocks: Mapping[str, tuple[str, Names]]

    def __call__(self, name: str) -> Sequence[str]:
        """Of a module there ours, in the order of its outputs; none: it is not known."""
        match = _NUMBERED.fullmatch(name)
        if match is None or match[1] not in self._inside:
            return self._outside.get(name, ())
        ours, names = self._inside[match[1]]
        return [".".join(filter(None, (ours, match[2], module))) for module in names.get(match[3] or "", ())]

    def ours(self) -> Iterator[str]:
        """All of our modules, where lists are as long as they may be."""
        yield from self.around
        for ours, (_, names) in self.blocks.items():
            yield from (".".join(filter(None, (ours, str(number), module))) for number in range(MOST_BLOCKS) for module in names)

    @cached_property
    def _outside(self) -> dict[str, list[str]]:
        return _inverted(self.around)

    @cached_property
    def _inside(self) -> dict[str, tuple[str, dict[str, list[str]]]]:
        return {theirs: (ours, _inverted(names)) for ours, (theirs, names) in self.blocks.items()}


@dataclass(frozen=True, kw_only=True)
class Original:
    """A transformer in the code that it was published with."""

    modules: Table
    first: str  # its first layer there, which has as many outputs as its blocks are wide
    alone: Names = field(default_factory=dict[str, str])  # tensors there that are of no module, to ours
    left_out: tuple[str, ...] = ()  # tensors that some files have, and the model does without
    swapped: Callable[[Collection[str]], tuple[str, ...]] = nothing_swapped  # of our modules those whose halves are exchanged there


def rows(original: Original, tensors: Mapping[str, Shape]) -> dict[str, Rows]:
    """By diffusers' name all that is made of these tensors. Raises Misshapen: it has others, or of another size."""
    wide = (*tensors.get(f"{original.first}.weight", ()), 0)[0]
    found: dict[str, Rows] = {}
    for name, shape in tensors.items():
        if name in original.alone:
            found[original.alone[name]] = Rows(source=name, shape=shape)
        elif name not in original.left_out:
            found |= _of(original, name, shape, wide)
    exchanged = original.swapped({_module(name) for name in found})
    return {name: _exchanged(each) if _module(name) in exchanged else each for name, each in found.items()}


def _of(original: Original, name: str, shape: Shape, wide: int) -> dict[str, Rows]:
    module, _, end = name.rpartition(".")
    modules = original.modules(module)
    if not modules:
        told = f", such as {name}" if is_module_name(name) else ""
        raise Misshapen(f"has tensors that are none of its transformer{told}")
    ends = [f"{ours}.{_ENDS.get(end, end)}" for ours in modules]
    if len(ends) == 1:
        return {ends[0]: Rows(source=name, shape=shape)}
    return dict(zip(ends, _cut(name, shape, wide, len(ends)), strict=True))


def _cut(name: str, shape: Shape, wide: int, num_parts: int) -> Iterator[Rows]:
    """Each but the last is as wide as its blocks; the last is what is left."""
    starts = [number * wide for number in range(num_parts)]
    if not shape or shape[0] <= starts[-1] or not wide:
        raise Misshapen(
            f"has a transformer of another size: {name} is {list(shape)}, of which {num_parts} layers {wide} wide are to be made"
        )
    for start, stop in zip(starts, [*starts[1:], shape[0]], strict=True):
        yield Rows(source=name, shape=(stop - start, *shape[1:]), ranges=((start, stop),))


def _exchanged(whole: Rows) -> Rows:
    half = whole.shape[0] // 2 if whole.shape else 0
    return Rows(source=whole.source, shape=whole.shape, ranges=((half, 2 * half), (0, half)))


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _inverted(names: Names) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for ours, theirs in names.items():
        found.setdefault(theirs, []).append(ours)
    return found
