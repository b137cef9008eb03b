"""Gains of a layer's inputs and outputs; all begin at 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.spec import AdapterSpec
from tests.trainer.toys.catalog.methods.toy_gain import FACTS
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights


class Gain:
    """See methods.protocol.AdapterMethod."""

    facts = FACTS
    changes_inputs = True

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor:
        return torch.ones(*shape)

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        return layer.times_inputs(x, slots.weights["inputs"])

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        if layer.bias is None:
            return layer.times(out, slots.weights["outputs"])
        bias = layer.along_outputs(layer.bias)
        return layer.times(out - bias, slots.weights["outputs"]) + bias

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        beyond = [1] * (weight.ndim - 2)
        return weight * tensors["outputs"].view(-1, 1, *beyond) * tensors["inputs"].view(1, -1, *beyond)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        return {self.facts.names[role]: tensor for role, tensor in tensors.items()}

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        return self.for_diffusers(tensors, file)

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        raise NotImplementedError  # each has gains of its own for what they see in common: its facts say that it never is

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        return {**tensors, "outputs": tensors["outputs"][order]}

    def peft_config(self) -> dict[str, Any]:
        return {"peft_type": "TOY"}

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return "toys.gain", {}


METHOD: AdapterMethod = Gain()
