"""Whole numbers of eight bits, with a scale for each output.

Ours, and not torchao's tensor, which computes the same: DeepSpeed broadcasts and moves parameters in ways that it does not know.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.quantisation.protocol import Quantisation

ROWS_AT_ONCE = 512  # are in single precision at a time


class Int8Linear(nn.Linear):
    """Computes in the dtype of its input; under autocast in bf16."""

    quantised: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)  # with no weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        scale, whole = torch.empty(len(weight)), torch.empty(weight.shape, dtype=torch.int8)
        for rows in range(0, len(weight), ROWS_AT_ONCE):
            part = slice(rows, rows + ROWS_AT_ONCE)
            scale[part] = weight[part].abs().amax(dim=1).float().clamp_min(1e-12) / 127
            whole[part] = (weight[part].float() / scale[part, None]).round().to(torch.int8)
        self.register_parameter("weight", None)
        self.register_parameter("bias", layer.bias)
        self.register_buffer("quantised", whole)
        self.register_buffer("scale", scale.to(layer.weight.dtype))

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        x = input.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else input
        out: Tensor = _Product.apply(x, self.quantised, self.scale)  # pyright: ignore[reportAssignmentType]
        bias = self._parameters["bias"]
        return out if bias is None else out + bias.to(out.dtype)


class _Product(torch.autograd.Function):
    """x W^T. What is kept for the backward pass is what is there anyway: the weight in eight bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantised: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(quantised, scale)
        return torch.matmul(x, quantised.to(x.dtype).T) * scale.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        quantised, scale = ctx.saved_tensors
        (gradient,) = gradients
        return torch.matmul(gradient * scale.to(gradient.dtype), quantised.to(gradient.dtype)), None, None


def int8(layer: nn.Linear) -> nn.Linear:
    """See quantisation.protocol.Quantisation."""
    return Int8Linear(layer).requires_grad_(False)


QUANTISATION: Quantisation = int8
