"""The facts of an optimizer: what it keeps for each tensor, and where it can work."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

from lorafleet.catalog.method import Shape

FP32_BYTES = 4
SMALLEST_8BIT = 4096  # numbers of a tensor; bitsandbytes holds the state of smaller ones in fp32
_BLOCK_8BIT = 256  # numbers that have one scale


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer. Its state is fp32 unless `state_bytes` says otherwise."""

    name: str
    title: str  # with its paper
    state_bytes: Callable[[Shape], int]  # of a parameter of that shape
    is_elementwise: bool  # each number's update needs no other's: what ZeRO 1 to 3 can cut anywhere
    needs_gpu: bool = False
    is_adam: bool = True  # goes by a spec's `adam_` fields
    averages: bool = False  # what it trains: it needs a rate that does not fall
    has_one_rate: bool = False  # for all tensors of an adapter
    usual_rate: float | None = None  # of one whose rate is a factor of what it finds by itself


def copies(number: int) -> Callable[[Shape], int]:
    """Of so many fp32 numbers for each of a parameter."""
    return lambda shape: number * FP32_BYTES * prod(shape)


def factored_bytes(shape: Shape) -> int:
    """Of a mean square held as its means over the last two sides (Shazeer and Stern 2018, algorithm 4)."""
    if len(shape) < 2:
        return FP32_BYTES * prod(shape)
    return FP32_BYTES * (prod(shape[:-1]) + prod(shape[:-2]) * shape[-1])


def eight_bit(number: int) -> Callable[[Shape], int]:
    """Of so many 8-bit numbers for each of a parameter, with a scale for each block."""

    def of(shape: Shape) -> int:
        size = prod(shape)
        return number * (FP32_BYTES * size if size < SMALLEST_8BIT else size + FP32_BYTES * ceil(size / _BLOCK_8BIT))

    return of
