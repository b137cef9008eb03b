"""LoRA: a low-rank update, scaling * B A, beside the frozen weight (Hu et al. 2021)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog import Method as MethodFacts
from lorafleet.catalog.methods import lora
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights
from trainer.typed_torch import block_diag, from_array


class LoRA:
    """See methods.protocol.AdapterMethod."""

    facts: MethodFacts = lora.FACTS
    changes_inputs = False

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor | None:
        """A as Kaiming-uniform with a = sqrt(5), which is PEFT's own rule; B zero, so that step 0 is the base."""
        return kaiming(shape, generator) if role == "A" else None

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        return x

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        return layer.add_low_rank(x, slots.weights["A"], slots.weights["B"], slots.scaling, out)

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        a, b = tensors["A"].flatten(1), tensors["B"].flatten(1)
        return weight + scaling * (b @ a).view_as(weight)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """The scaling is folded into B and alpha written as rank: older diffusers ignore the metadata and assume just that."""
        return {"lora_A.weight": tensors["A"], "lora_B.weight": tensors["B"] * file.scaling}

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """Readers scale by alpha / rank: for rsLoRA alpha is what gives its own scaling. What rounding takes from it is given to B."""
        exact = torch.tensor(file.scaling * file.rank)
        rounded = exact.to(file.precision)
        return {"lora_down.weight": tensors["A"], "lora_up.weight": tensors["B"] * (exact / rounded), "alpha": rounded.clone()}

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        """The As one below the other, the Bs as the blocks of a diagonal: exact, whatever the layers learned."""
        a = torch.cat([layer["A"] for layer in layers if not isinstance(layer, int)])
        b = block_diag(*(torch.zeros(layer, 0) if isinstance(layer, int) else layer["B"] for layer in layers))
        return {"A": a, "B": b}

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        return {**tensors, "B": tensors["B"][order]}

    def peft_config(self) -> dict[str, Any]:
        return {}

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return "networks.lora", {}


def kaiming(shape: Sequence[int], generator: np.random.Generator) -> Tensor:
    """Kaiming-uniform with a = sqrt(5), (prod(shape),)."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return from_array(generator.uniform(-bound, bound, math.prod(shape)))


METHOD: AdapterMethod = LoRA()
