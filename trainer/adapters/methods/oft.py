"""OFT: a layer's outputs, without their bias, block by block times an orthogonal matrix (Qiu et al. 2023), as LyCORIS' diag-oft has it.

R = (I + Q) (I - Q)^-1 with Q = S - S^T is Cayley's map of S, what is trained. Outputs y of a block become y R.
"""

from collections.abc import Sequence
from math import lcm, log2

import numpy as np
import torch
from torch import Tensor

from lorafleet.catalog.methods import oft
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods import lycoris_files
from trainer.adapters.methods.protocol import AdapterMethod, File, Layer, Slots, Weights
from trainer.typed_torch import block_diag, inverse, vector_norm


class OFT:
    """See methods.protocol.AdapterMethod."""

    facts = oft.FACTS
    changes_inputs = False

    def initial(self, role: str, shape: Sequence[int], weight: Tensor, generator: np.random.Generator) -> None:
        """Zeros: nothing is turned, so step 0 is the base."""
        return

    def inputs(self, layer: Layer, x: Tensor, slots: Slots) -> Tensor:
        return x

    def outputs(self, layer: Layer, x: Tensor, out: Tensor, slots: Slots) -> Tensor:
        turns = rotations(slots.weights["blocks"])
        if slots.is_dropped:  # what the turning adds is of the inputs that were not dropped
            seen = layer.frozen(x)
            return out + (layer.turned(seen, turns) - seen)
        if layer.bias is None:
            return layer.turned(out, turns)
        bias = layer.along_outputs(layer.bias)
        return layer.turned(out - bias, turns) + bias

    def merged(self, weight: Tensor, tensors: Weights, scaling: float) -> Tensor:
        turns = rotations(tensors["blocks"])
        return torch.bmm(turns.mT, weight.reshape(*turns.shape[:2], -1)).view_as(weight)

    def for_diffusers(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        raise NotImplementedError  # diffusers loads none of its files: its facts say so, and specs that ask for one are refused

    def for_kohya(self, tensors: Weights, file: File) -> dict[str, Tensor]:
        """Readers take alpha for a norm that Q is held to; 0 is none to LyCORIS, and to A1111 it is 0. Over Q's own norm all leave it."""
        blocks = tensors["blocks"]
        norm = float(vector_norm(blocks - blocks.mT))
        return {"oft_blocks": blocks, "alpha": torch.tensor(2.0 ** max(0, int(log2(norm)) + 2) if norm else 1.0)}

    def side_by_side(self, layers: Sequence[Weights | int]) -> Weights:
        """Their blocks one after another, in a size that each layer's divide: blocks on a diagonal are turned as each would be."""
        numbers = [layer if isinstance(layer, int) else layer["blocks"].shape[:2].numel() for layer in layers]
        size = lcm(*(layer["blocks"].shape[1] for layer in layers if not isinstance(layer, int)))
        if any(number % size for number in numbers):
            whole = (torch.zeros(layer, layer) if isinstance(layer, int) else _in_one(layer["blocks"]) for layer in layers)
            return {"blocks": block_diag(*whole)[None]}
        joined = (torch.zeros(layer // size, size, size) if isinstance(layer, int) else _joined(layer["blocks"], size) for layer in layers)
        return {"blocks": torch.cat(list(joined))}

    def with_outputs(self, tensors: Weights, order: Tensor) -> Weights:
        """Blocks change places where they stay whole, as with halves of the outputs; else all outputs become one block."""
        blocks, size = tensors["blocks"], tensors["blocks"].shape[1]
        places = order.view(-1, size)
        if torch.equal(places, places[:, :1] + torch.arange(size)) and not bool((places[:, 0] % size).any()):
            return {"blocks": blocks[places[:, 0] // size]}
        return {"blocks": _in_one(blocks)[order][:, order][None]}

    def peft_config(self) -> None:
        return None

    def kohya_network(self, spec: AdapterSpec) -> tuple[str, dict[str, str]]:
        return lycoris_files.NETWORK, {"algo": "diag-oft"}


def rotations(blocks: Tensor) -> Tensor:
    """R of each block, (..., size, size): (I + Q) (I - Q)^-1 is 2 (I - Q)^-1 - I, without a product that autocast would round."""
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return 2 * inverse(identity - (blocks - blocks.mT)) - identity


def _joined(blocks: Tensor, size: int) -> Tensor:
    """In larger blocks of that size, each some of these on its diagonal."""
    return torch.stack([_in_one(each) for each in torch.unflatten(blocks, 0, (-1, size // blocks.shape[1]))])


def _in_one(blocks: Tensor) -> Tensor:
    return block_diag(*blocks)


METHOD: AdapterMethod = OFT()
