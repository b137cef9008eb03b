"""What the file formats share: canonical tensors by module and role, the precision of files, families' names."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from lorafleet.catalog import METHODS
from lorafleet.spec import AdapterSpec
from trainer.adapters.layout import scaling
from trainer.adapters.methods.protocol import File

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Training moves magnitudes by less than half precision can tell apart.
_MAGNITUDES = ("lora_magnitude_vector", "dora_scale")


def by_module(weights: Mapping[str, Tensor], spec: AdapterSpec) -> dict[str, dict[str, Tensor]]:
    """Tensors by role, by the canonical path of their module."""
    roles = {end: role for role, end in METHODS.get(spec.method).names.items()}
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in weights.items():
        end = next(end for end in roles if name.endswith(f".{end}"))
        found[name.removesuffix(f".{end}")][roles[end]] = tensor
    return dict(found)


def file_of(spec: AdapterSpec, precision: str) -> File:
    return File(DTYPES[precision], scaling(spec), spec.rank)


def usable_precision(weights: Mapping[str, Tensor], spec: AdapterSpec, asked: str) -> str:
    """`asked`, or fp32 where the adapter has a number beyond fp16's range: it would become infinite."""
    most = max((float(tensor.abs().max()) for tensor in weights.values() if tensor.numel()), default=0.0)
    layers = [spec.at(path) for path in by_module(weights, spec)] if spec.overrides else [spec]
    alpha = scaling(spec) * spec.rank
    largest = max(alpha, *(most * max(1.0, scaling(layer), scaling(layer) * layer.rank / alpha) for layer in layers))
    return "fp32" if asked == "fp16" and largest > torch.finfo(torch.float16).max else asked


def stored(tensors: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """The tensors as they are written; magnitudes are always fp32."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        dtype = torch.float32 if name.endswith(_MAGNITUDES) else DTYPES[precision]
        found[name] = tensor.detach().to("cpu", dtype).contiguous()
    return found
