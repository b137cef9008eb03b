"""An adapter on the layers of a published model, rank 1, with numbers drawn here; its files, and the arithmetic of their readers."""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from safetensors.torch import load
from torch import Tensor, nn

from lorafleet import spec
from lorafleet.catalog import FAMILIES, METHODS
from lorafleet.catalog.method import is_target
from lorafleet.catalog.part import Layers
from lorafleet.spec import Spec
from tests.trainer.families.real import Real
from trainer.adapters.formats.kohya import kohya_file

RANK, ALPHA = 1, 3.0


def asked(family: str, targets: Sequence[str], **adapter: object) -> Spec:
    given = {"rank": RANK, "alpha": ALPHA, "target_modules": list(targets), **adapter}
    return spec.parse(
        {
            "base_model": {"uri": "file:///base", "family": family},
            "dataset": {"uri": "file:///data"},
            "adapter": given,
            "output": {"precision": "fp32"},
        }
    )


def layers_of(denoiser: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}


def adapter(denoiser: nn.Module, of: Spec) -> dict[str, Tensor]:
    """By the trainer's names."""
    method, draws = METHODS.get(of.adapter.method), torch.Generator().manual_seed(5)
    part = of.family.denoiser.name
    return {
        f"{part}.{name}.{method.names[role]}": torch.randn(shape, generator=draws) / prod(shape[-1:]) ** 0.5
        for name, layer in layers_of(denoiser).items()
        if is_target(name, of.adapter.target_modules)
        for role, shape in method.tensors(of.adapter.rank, tuple(layer.weight.shape)).items()
    }


def file_layers(family: str, denoiser: nn.Module) -> Layers:
    """As trainer.prepare.base_model has them, of a base that is read."""
    rename, found = FAMILIES.get(family).kohya_modules, layers_of(denoiser)
    return Layers(rename(found) if rename else {}, {name: layer.out_features for name, layer in found.items()})


def kohya(denoiser: nn.Module, of: Spec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return load(kohya_file(weights, of, {}, "fp32", layers=file_layers(of.family.name, denoiser)))


def kohya_of(real: Real, family: str, targets: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the adapter, kohya's file of it)."""
    denoiser, of = real.denoiser(), asked(family, targets)
    weights = adapter(denoiser, of)
    return weights, kohya(denoiser, of, weights)


def seen(num_inputs: int) -> Tensor:
    """Some inputs of a layer, (inputs, 3): two updates that make the same of them are the same, and whole ones take gigabytes."""
    return torch.randn(num_inputs, 3, generator=torch.Generator().manual_seed(num_inputs)) / num_inputs**0.5


def read_update(file: Mapping[str, Tensor], module: str) -> Tensor:
    """What a reader of kohya's layout adds to that layer's outputs: up down alpha / rank, of what is `seen`."""
    down, up, alpha = (file[f"{module}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
    return up @ (down @ seen(down.shape[1])) * (alpha / len(down))


def our_update(weights: Mapping[str, Tensor], module: str) -> Tensor:
    """What the trainer adds to that layer's outputs."""
    a, b = weights[f"{module}.lora_A.weight"], weights[f"{module}.lora_B.weight"]
    return b @ (a @ seen(a.shape[1])) * (ALPHA / RANK)
