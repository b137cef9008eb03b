"""What files of LyCORIS' methods have in common: matrices of two dimensions, and the scaling in one of them.

Readers differ in where they take alpha: some of a full matrix not at all, some twice (LyCORIS' own, of LoKr). With alpha the rank all
multiply by 1.
"""

import torch
from torch import Tensor

from lorafleet.catalog import Method
from trainer.adapters.methods.protocol import File, Weights

NETWORK = "lycoris.kohya"  # `ss_network_module`


def named(facts: Method, tensors: Weights, file: File, *, scaled: str) -> dict[str, Tensor]:
    """A module's tensors by the end of their name; `scaled`: the role of the one that gets the scaling."""
    alpha = torch.tensor(float(file.rank)).to(file.precision)
    factor = file.scaling * file.rank / alpha.float()  # what rounding takes from alpha is given back
    return {**in_their_shapes(facts, {**tensors, scaled: tensors[scaled] * factor}), "alpha": alpha.clone()}


def in_their_shapes(facts: Method, tensors: Weights) -> dict[str, Tensor]:
    """Of a convolution only a whole matrix of LoKr keeps the kernel's dimensions."""
    return {facts.names[role]: tensor.flatten(1) if role.endswith("_b") else tensor for role, tensor in tensors.items()}
