"""What the sides of a low-rank update begin with where a spec asks for it (adapter.initialization), by PEFT's names and formulas.

A method's own beginning is Kaiming's. Whatever it is, B A is zero, so that step 0 is the base.
"""

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog.method import Shape
from trainer.typed_torch import from_array, qr

Draws = np.random.Generator
# (shapes of the layer's tensors by role, draws) -> those of them that it gives, by role, (prod(shape),) or of the shape.
Initialization = Callable[[Mapping[str, Shape], Draws], Mapping[str, Tensor]]


def _methods_own(shapes: Mapping[str, Shape], draws: Draws) -> Mapping[str, Tensor]:
    return {}


def _gaussian(shapes: Mapping[str, Shape], draws: Draws) -> Mapping[str, Tensor]:
    """A normal with a deviation of 1 / rank, as diffusers' example scripts begin."""
    return {"A": normal(draws, *shapes["A"]) / shapes["A"][0]}


def _orthogonal(shapes: Mapping[str, Shape], draws: Draws) -> Mapping[str, Tensor]:
    """Both sides are there, in halves of the rank's space that are orthogonal to each other: B A = 0 although neither is zero
    (datta0.github.io/posts/rethink-lora-init). Of a convolution A's kernel counts as inputs."""
    rank, num_inputs, num_outputs = shapes["A"][0], prod(shapes["A"][1:]), shapes["B"][0]
    turned, _ = qr(normal(draws, rank, rank))
    odd, even = turned[0::2], turned[1::2]
    a = (normal(draws, num_inputs, rank // 2) @ odd).mT / 10
    return {"A": a.contiguous(), "B": (normal(draws, num_outputs, rank // 2) @ even).contiguous() / 10}


def normal(draws: Draws, *shape: int) -> Tensor:
    return from_array(draws.standard_normal(shape)).to(torch.float32)


INITIALIZATIONS: Mapping[str, Initialization] = {"kaiming": _methods_own, "gaussian": _gaussian, "orthogonal": _orthogonal}
