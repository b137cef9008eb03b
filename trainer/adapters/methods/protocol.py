"""The seam of an adapter method: how it begins, what it adds to a layer for k styles at once, and what its files hold.

A new method is one file beside lora.py, and its facts (lorafleet.catalog.methods), which say the shapes of its tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lorafleet.catalog import Method as MethodFacts
from lorafleet.spec import AdapterSpec

Weights = Mapping[str, Tensor]  # by role


class Layer(Protocol):
    """A frozen linear or convolution layer, as methods see it: the same names for both. Rows lie slot by slot, k slots in all.

    x: (rows, ..., in) or (rows, in, height, width); out: (rows, ..., out) or (rows, out, height', width').
    """

    base: nn.Module

    @property
    def weight(self) -> Tensor: ...

    @property
    def bias(self) -> Tensor | None: ...

    def add_low_rank(self, x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor, kept: Tensor | None = None) -> Tensor:
        """`out` + scaling * B A x, with A (k, rank, in, ...), B (k, out, rank, ...) and scaling (k,); `kept`, (rows or 1, rank): what is
        multiplied with A x."""
        ...

    def add_kronecker(self, x: Tensor, first: Tensor, second: Sequence[Tensor], scaling: Tensor, out: Tensor) -> Tensor:
        """`out` + scaling * kron(W1, W2) x, with W1 (k, o1, i1) and W2 (k, o2, i2, ...), or the two that it is the product of, the one
        that sees x first: (k, rank, i2, ...) and (k, o2, rank)."""
        ...

    def turned(self, out: Tensor, turns: Tensor) -> Tensor:
        """Each block of `out`'s channels, as a row, times its slot's matrix for it, (k, blocks, size, size)."""
        ...

    def times(self, out: Tensor, factor: Tensor) -> Tensor:
        """`out` times each slot's factor for each output, (k, out)."""
        ...

    def times_inputs(self, x: Tensor, factor: Tensor) -> Tensor:
        """`x` times each slot's factor for each input, (k, in)."""
        ...

    def along_outputs(self, bias: Tensor) -> Tensor:
        """The bias, (out,), as it is added to the layer's output."""
        ...

    def frozen(self, x: Tensor) -> Tensor:
        """The frozen layer without its bias."""
        ...


class Slots(NamedTuple):
    """The rows of some slots of one bank at one layer."""

    weights: Weights  # each (k, *shape)
    scaling: Tensor  # (k,)
    is_dropped: bool  # whether dropout has changed x since the frozen layer saw it
    noise: Tensor | None = None  # share of noise in each row, (rows or 1,), from 0 to 1; None: the method does not go by it
    least_rank: int = 1  # of a row that is nothing but noise
    is_doubled: bool = False  # whether the sides are of twice the rank, since what they began with is subtracted


class File(NamedTuple):
    """One format's file: tensors by the end of their name, for each module."""

    precision: torch.dtype
    scaling: float
    rank: int


class AdapterMethod(Protocol):
    """Stateless."""

    facts: MethodFacts
    changes_inputs: bool  # whether `inputs` does anything

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor | None:
        """A tensor that training begins with, (prod(shape),) or `shape`; None: zeros. `weight` is the frozen layer's."""
        ...

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        """What the frozen layer sees of x."""
        ...

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        """What becomes of the frozen layer's output; `x` is what it saw, after dropout."""
        ...

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        """The weight of a plain layer, shaped as `weight`, that computes what the frozen one does with this adapter."""
        ...

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """One module's tensors as diffusers reads them, by the end of their name, fp32."""
        ...

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """One module's tensors as readers of kohya's layout find them, by the end of their name, fp32."""
        ...

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        """One layer's tensors for those of several that see the same: its outputs are theirs, one after another; its rank is the sum of
        theirs. A number: so many outputs of a layer without an adapter, where its facts say that there may be such."""
        ...

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        """The tensors of a layer that has the same outputs in this order: (out,), of their numbers."""
        ...

    def peft_config(self) -> dict[str, Any] | None:
        """What differs from LoRA in diffusers' `lora_adapter_metadata`; None: it is left out, since diffusers tells all by the tensors."""
        ...

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        """`ss_network_module` and `ss_network_args`."""
        ...
