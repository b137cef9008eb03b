"""NF4 by bitsandbytes. Its layer is used by itself: diffusers' and transformers' own configuration of it refuses CPUs."""

import torch
from bitsandbytes.nn.modules import LinearNF4, Params4bit
from torch import nn

from trainer.quantisation.protocol import Quantisation
from trainer.typed_torch import bias_of


def nf4(layer: nn.Linear) -> nn.Linear:
    """See quantisation.protocol.Quantisation."""
    bias = bias_of(layer)
    small = LinearNF4(layer.in_features, layer.out_features, bias=bias is not None, compute_dtype=torch.bfloat16, device="meta")
    small.weight = Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4")  # pyright: ignore[reportCallIssue]
    if bias is not None:
        small.bias = bias
    return small.to("cpu").requires_grad_(False)  # which quantises it


QUANTISATION: Quantisation = nf4
