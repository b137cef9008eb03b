"""The denoisers as they are published, without their weights: on the meta device shapes are computed, and nothing else.

`python -m tests.trainer.families.real` prints what the facts of each family say of memory, `values_per_pixel`, as it is counted here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorafleet.catalog.method import Shape
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.layout import Kind
from trainer.adapters.model import PackModel
from trainer.families import family

META = torch.device("meta")
RANK = 16
_BLOCK = re.compile(r"^\w+\.\d+\.")


@dataclass(frozen=True, kw_only=True)
class Real:
    """A published denoiser, and what it takes of one picture of the size that it was trained at."""

    built: Any  # diffusers' class
    config: Mapping[str, Any]  # what of it is not the class's own default
    latents: Shape  # (channels, height, width), as the family keeps them
    conditioning: Mapping[str, Shape]  # without rows
    patch: int = 1  # latents of the autoencoder's, along a side, that are one here

    def denoiser(self) -> nn.Module:
        with META:
            return self.built(**self.config).requires_grad_(False)


@dataclass
class Step:
    """What one step has to show."""

    predicted: Tensor
    gradient: Tensor | None  # of the adapter
    num_kept: int  # numbers that autograd keeps for the backward pass, without the weights and without attention matrices


def step(name: str, real: Real, target_modules: tuple[str, ...]) -> Step:
    """A forward and a backward pass of one row, with LoRA on these layers."""
    of = family(name)
    parts = {of.facts.denoiser.name: real.denoiser()}
    with META:
        model = PackModel(of, parts, trains_text=False, bf16=False)
        bank = model.add_bank(Kind("lora", RANK, target_modules, False, 0.0, "adamw"), 1, batch_invariant=False)
        bank.num_styles = 1
        conditioning = {key: torch.empty(1, *shape) for key, shape in real.conditioning.items()}
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights and not _is_attention_matrix(tensor):
                kept[storage._cdata] = storage.nbytes() // tensor.element_size()
                alive.append(tensor)  # another storage must not get the same address
            return tensor

        alive: list[Tensor] = []
        # Not `model(…)`: there is no autocast for this device.
        with model.serving([ActiveSlots(bank, [0])]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            predicted = of.predict(parts, torch.empty(1, *real.latents), torch.empty(1), conditioning)
        predicted.sum().backward()
    return Step(predicted, bank.flat.grad, sum(kept.values()))


def values_per_pixel(name: str, real: Real, target_modules: tuple[str, ...]) -> float:
    """For each latent pixel and channel of the first block, as service.control.memory counts."""
    first: Any = real.denoiser().get_submodule(family(name).facts.first_layer)
    return step(name, real, target_modules).num_kept / (real.latents[-1] * real.latents[-2] * real.patch**2 * first.weight.shape[0])


def _is_attention_matrix(tensor: Tensor) -> bool:
    """The fused kernels do not keep it; the one that computes on the meta device does."""
    return tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] >= 1024


def every_linear(real: Real) -> tuple[str, ...]:
    """The ends of the names of all linear layers, as a spec may name them: what follows the number of a block."""
    names = [name for name, module in real.denoiser().named_modules() if isinstance(module, nn.Linear)]
    return tuple(dict.fromkeys(_BLOCK.sub("", name) for name in names))


def _print_all() -> None:
    from tests.trainer.families.rows import REAL

    for name, real in REAL.items():
        every, usual = (
            values_per_pixel(name, real, targets) for targets in (every_linear(real), family(name).facts.denoiser.target_modules)
        )
        facts = family(name).facts.values_per_pixel
        print(f"{name}: {every:.0f} with LoRA on every linear layer, {usual:.0f} on the usual ones; its facts say {facts}")


if __name__ == "__main__":
    _print_all()
