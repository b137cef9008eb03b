"""The facts of an optimizer: what it keeps for each tensor, and where it can work."""

from collections.abc import Callable
from dataclasses import dataclass

from lorafleet.catalog.method import Shape


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer. Its state is fp32 unless `state_bytes` says otherwise."""

    name: str
    title: str  # with its paper
    state_bytes: Callable[[Shape], int]  # of a parameter of that shape
    is_elementwise: bool  # each number's update needs no other's: what ZeRO 1 to 3 can cut anywhere
    needs_gpu: bool = False
