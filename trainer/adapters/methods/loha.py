"""LoHa: an update (A1 B1) * (A2 B2), number by number, beside the frozen weight (Hyeon-Woo et al. 2022)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog.methods import loha
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods import lycoris_files
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights
from trainer.typed_torch import block_diag, from_array

_DEVIATIONS = {"w1_a": 0.1, "w1_b": 1.0, "w2_b": 1.0}  # of what they begin with, as in LyCORIS; the other is zero, so step 0 is the base


class LoHa:
    """See methods.protocol.AdapterMethod."""

    facts = loha.FACTS
    changes_inputs = False

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor | None:
        return from_array(generator.normal(0.0, _DEVIATIONS[role], shape)) if role in _DEVIATIONS else None

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        return x

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        """As an update of rank squared, which it is: its columns are the products of each column of A1 with each of A2, and B's rows
        likewise. So no matrix of the size of the layer's own is made for each style and kept for the backward pass."""
        w1_a, w1_b, w2_a, w2_b = (slots.weights[role] for role in ("w1_a", "w1_b", "w2_a", "w2_b"))
        b = (w1_a[..., :, None] * w2_a[..., None, :]).flatten(2)  # (slots, out, rank * rank)
        a = (w1_b[:, :, None] * w2_b[:, None]).flatten(1, 2)  # (slots, rank * rank, in, ...)
        return layer.add_low_rank(x, a, b, slots.scaling, out)

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        products = [tensors[f"{each}_a"] @ tensors[f"{each}_b"].flatten(1) for each in ("w1", "w2")]
        return weight + scaling * (products[0] * products[1]).view_as(weight)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        raise NotImplementedError  # diffusers loads none of its files: its facts say so, and specs that ask for one are refused

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        return lycoris_files.named(self.facts, tensors, file, scaled="w1_a")

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        """The Bs one below the other, the As as the blocks of a diagonal: what is outside of the blocks is zero in both products."""
        found: dict[str, Tensor] = {}
        for each in ("w1", "w2"):
            blocks = (torch.zeros(layer, 0) if isinstance(layer, int) else layer[f"{each}_a"] for layer in layers)
            found[f"{each}_a"] = block_diag(*blocks)
            found[f"{each}_b"] = torch.cat([layer[f"{each}_b"] for layer in layers if not isinstance(layer, int)])
        return found

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        return {**tensors, "w1_a": tensors["w1_a"][order], "w2_a": tensors["w2_a"][order]}

    def peft_config(self) -> None:
        return None

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return lycoris_files.NETWORK, {"algo": "loha"}


METHOD: AdapterMethod = LoHa()
