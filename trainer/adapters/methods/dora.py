"""DoRA: the frozen weight and a low-rank update give the direction of each output's weights, a magnitude their norm (Liu et al. 2024)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog.methods import dora
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods.lora import LoRA
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights
from trainer.typed_torch import vector_norm


class DoRA(LoRA):
    facts = dora.FACTS

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> Tensor | None:
        """The magnitude begins as the base's own, so that step 0 is the base."""
        if role == "magnitude":
            return vector_norm(weight.detach().float().flatten(1), dim=1)
        return super().initial(role, shape, weight, generator)

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        bias = layer.along_outputs(layer.bias) if layer.bias is not None else 0.0
        without_bias = layer.frozen(x) if slots.is_dropped else out - bias
        return layer.times(super().outputs(layer, x, without_bias, slots), _factor(layer.weight, slots)) + bias

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        direction = super().merged(weight, tensors, scaling).flatten(1)
        return (direction * (tensors["magnitude"] / vector_norm(direction, dim=1))[:, None]).view_as(weight)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """PEFT keeps the magnitudes of a convolution as (1, out, 1, 1)."""
        magnitude = tensors["magnitude"]
        named = magnitude.reshape(1, -1, 1, 1) if tensors["A"].ndim == 4 else magnitude
        return {**super().for_diffusers(tensors, file), "lora_magnitude_vector": named}

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        scale = tensors["magnitude"].reshape(-1, *[1] * (tensors["A"].ndim - 1))
        return {**super().for_kohya(tensors, file), "dora_scale": scale}

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        magnitudes = [layer["magnitude"] for layer in layers if not isinstance(layer, int)]
        return {**super().side_by_side(layers), "magnitude": torch.cat(magnitudes)}

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        return {**super().with_outputs(tensors, order), "magnitude": tensors["magnitude"][order]}

    def peft_config(self) -> dict[str, Any]:
        return {"use_dora": True}

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        """DoRA is LyCORIS' in this layout, with a magnitude for each output."""
        return "lycoris.kohya", {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}


def _factor(weight: Tensor, slots: Slots) -> Tensor:
    """The magnitude over the norm of the direction, (slots, out); the norm is a constant to the gradient (Liu et al. 2024, 4.3)."""
    a, b = slots.weights["A"], slots.weights["B"]
    with torch.no_grad(), torch.autocast(slots.scaling.device.type, enabled=False):
        norm = column_norm(weight.to(a.dtype), a, b, slots.scaling)
    return slots.weights["magnitude"] / norm


def column_norm(weight: Tensor, a: Tensor, b: Tensor, scaling: Tensor) -> Tensor:
    """Norms of each output's weights in W + scaling B A, (slots, out), without making k copies of W.

    |w + s bA|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b^T, for each row w of W and b of B.
    """
    w, a, b = weight.flatten(1), a.flatten(2), b.flatten(2)
    s = scaling[:, None]
    aw = torch.bmm(a, w.T.expand(len(a), -1, -1))  # (slots, rank, out)
    cross = (b * aw.mT).sum(2)
    update = (torch.bmm(b, torch.bmm(a, a.mT)) * b).sum(2)
    return (w.pow(2).sum(1) + 2 * s * cross + s.pow(2) * update).clamp_min(0).sqrt()


METHOD: AdapterMethod = DoRA()
