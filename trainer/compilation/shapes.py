"""Which passes go by graphs: those of one shape by one, and of so many shapes at most. Pure; knows neither compilers nor devices."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from trainer.adapters.bank import ActiveSlots

log = logging.getLogger("lorafleet.pack")

Chosen = Literal["none", "blocks", "graph"]
MOST_SHAPES = 16  # that get graphs: each takes time to compile, or memory


def on_device(asked: Chosen, device_type: str) -> tuple[Chosen, str]:
    """What is done on this kind of device, and what there is to say of it."""
    if asked == "none" or device_type == "cuda":
        return asked, ""
    return "none", f'training.compile "{asked}" is for GPUs: here passes run eagerly, on a {device_type.upper()}, with the same numbers'


@dataclass(frozen=True)
class PassShape:
    """All that a graph is made for. Passes that have it in common differ in numbers alone."""

    rows: tuple[int, ...]  # of the noised latents
    conditioning: tuple[tuple[str, tuple[int, ...]], ...]
    slots: tuple[tuple[int, bool, int, int, int], ...]  # of each slot group: its bank, whether all slots of it, how many, rows each, start

    @classmethod
    def of(cls, active: Sequence[ActiveSlots], noisy: Tensor, conditioning: Mapping[str, Tensor]) -> "PassShape":
        slots = tuple(
            (id(each.bank), each.bank.has_no_more_than(each.slots), len(each.slots), each.rows_each or len(noisy), each.start)
            for each in active
        )
        return cls(tuple(noisy.shape), tuple((name, tuple(tensor.shape)) for name, tensor in conditioning.items()), slots)


class KnownShapes:
    """The shapes that have graphs: the first so many that come twice. Buckets come again; what a style left behind need not."""

    def __init__(self, most: int = MOST_SHAPES) -> None:
        self.most = most
        self._seen, self._known, self._has_told = set[PassShape](), set[PassShape](), False

    def takes(self, shape: PassShape) -> bool:
        """Whether this pass of this shape goes by a graph."""
        if shape in self._known:
            return True
        if shape not in self._seen:
            self._seen.add(shape)
            return False
        if len(self._known) < self.most:
            self._known.add(shape)
            return True
        if not self._has_told:
            log.warning("passes have had more than %d shapes: those of others run eagerly, as without training.compile", self.most)
        self._has_told = True
        return False

    def forget(self) -> None:
        """The banks that they are of are about to go."""
        self._seen.clear()
        self._known.clear()
