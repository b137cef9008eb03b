"""NF4 by bitsandbytes. Its layer is used by itself: diffusers' and transformers' own configuration of it refuses CPUs."""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes import functional
from bitsandbytes.nn.modules import LinearNF4, Params4bit
from torch import Tensor, nn

from trainer.quantisation.protocol import Quantisation
from trainer.typed_torch import bias_of

NUMBERS_AT_ONCE = 2**20  # of a layer; a multiple of the library's blocks. It holds several copies in single precision of what it is given
_functional: Any = functional
quantize_4bit: Callable[..., tuple[Tensor, Any]] = _functional.quantize_4bit
quantize_blockwise: Callable[..., tuple[Tensor, Any]] = _functional.quantize_blockwise
_SCALES_BLOCK = 256  # scales that have one scale themselves, as in the library (Dettmers et al. 2023, section 3)


def nf4(layer: nn.Linear) -> nn.Linear:
    """See quantisation.protocol.Quantisation."""
    bias = bias_of(layer)
    small = LinearNF4(layer.in_features, layer.out_features, bias=bias is not None, compute_dtype=torch.bfloat16, device="meta")
    numbers, state = _quantised(layer.weight.detach())
    small.weight = Params4bit(numbers, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True)  # pyright: ignore[reportCallIssue]
    if bias is not None:
        small.bias = bias
    # On some CPUs the library repacks a layer's weight when no gradient is asked for: other numbers than in training, not for every
    # width, and nothing that its backward pass could read.
    small.support_avx512bf16_for_cpu = False
    return small.requires_grad_(False)


def _quantised(weight: Tensor) -> tuple[Tensor, Any]:
    """What the library makes of the whole weight, to the bit: its blocks know nothing of each other, and their scales come last."""
    flat = weight.reshape(-1)
    parts = [quantize_4bit(flat[start : start + NUMBERS_AT_ONCE], quant_type="nf4") for start in range(0, len(flat), NUMBERS_AT_ONCE)]
    scales, state = torch.cat([part.absmax for _, part in parts]), parts[0][1]
    state.shape, state.offset = weight.shape, scales.mean()
    state.absmax, state.state2 = quantize_blockwise(scales - state.offset, blocksize=_SCALES_BLOCK)
    state.nested = True
    return torch.cat([numbers for numbers, _ in parts]), state


QUANTISATION: Quantisation = nf4
