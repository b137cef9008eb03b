"""LoKr: an update kron(W1, W2) beside the frozen weight, W2 whole or as A B (Edalati et al. 2022; Yeh et al. 2024)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog.methods import lokr
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods import lycoris_files
from trainer.adapters.methods.lora import kaiming
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights


class LoKr:
    """See methods.protocol.AdapterMethod."""

    facts = lokr.FACTS
    changes_inputs = False

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor | None:
        """As in LyCORIS: W2, or what is multiplied into it last, is zero, so that step 0 is the base."""
        return kaiming(shape, generator) if role in ("w1", "w2_a") else None

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        return x

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        weights = slots.weights
        second = (weights["w2"],) if "w2" in weights else (weights["w2_b"], weights["w2_a"])
        return layer.add_kronecker(x, weights["w1"], second, slots.scaling, out)

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        w1, w2 = tensors["w1"], _second(tensors)
        return weight + scaling * torch.kron(w1.reshape(*w1.shape, *[1] * (w2.ndim - 2)), w2).view_as(weight)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """It takes alpha for the rank where it finds no config; so the scaling is in W1."""
        return lycoris_files.in_their_shapes(self.facts, {**tensors, "w1": tensors["w1"] * file.scaling})

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        return lycoris_files.named(self.facts, tensors, file, scaled="w1")

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        raise NotImplementedError  # one below the other they are no Kronecker product: its facts say that they never are

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        raise NotImplementedError  # likewise

    def peft_config(self) -> None:
        return None

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        factor = lokr.BALANCED if spec.factor is None else spec.factor
        return lycoris_files.NETWORK, {"algo": "lokr", "factor": str(factor)}


def _second(tensors: Weights) -> Tensor:
    if "w2" in tensors:
        return tensors["w2"]
    w2_b = tensors["w2_b"]
    return (tensors["w2_a"] @ w2_b.flatten(1)).view(-1, *w2_b.shape[1:])


METHOD: AdapterMethod = LoKr()
