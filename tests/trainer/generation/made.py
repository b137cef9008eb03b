"""Adapters with random numbers on given layers, by every method, also as files have them that our own methods do not compute with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lorafleet.catalog import METHODS
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.writing import write
from trainer.adapters.layout import Layer, weight_shape

ENDS = ("attn1.to_q", "attn2.to_v", "attn.to_k", "attn.to_out.0", "resnets.0.conv1", "ff.net.0.proj", "q_proj", "out_proj")


def module(path: str, layer: nn.Module, method: str, seed: int, *, rank: int = 4, size: float = 0.2) -> Module:
    """Numbers of that size beside magnitudes, which are near the layer's own."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    draws = torch.Generator().manual_seed(seed)
    tensors = {
        role: torch.randn(shape, generator=draws) * size for role, shape in METHODS.get(method).tensors(rank, weight_shape(layer)).items()
    }
    tensors = {role: tensor.flatten(1) if role.endswith("_b") else tensor for role, tensor in tensors.items()}  # as files have them
    if "magnitude" in tensors:
        tensors["magnitude"] = layer.weight.detach().flatten(1).norm(dim=1) * (1 + tensors["magnitude"])
    return Module(paths=(path,), method=method, tensors=tensors, rank=rank, alpha=0.0 if method == "oft" else rank / 2)


def on(layers: Mapping[str, Layer], method: str, seed: int, *, rank: int = 4, family: str = "sd1", **metadata: str) -> AdapterFile:
    modules = tuple(module(path, layer, method, seed + number, rank=rank) for number, (path, layer) in enumerate(layers.items()))
    return AdapterFile(format="kohya", families=(family,), modules=modules, metadata=metadata)


def some(layers: Mapping[str, Layer], ends: Sequence[str] = ENDS, most: int = 2) -> dict[str, Layer]:
    """The first few of each kind."""
    return {path: layers[path] for end in ends for path in [path for path in layers if path.endswith(end)][:most]}


def file(folder: Path, name: str, adapter: AdapterFile, format: str = "kohya") -> Path:
    path = folder / f"{name}.safetensors"
    path.write_bytes(write(adapter, format).files[""])
    return path


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
