"""The denoisers as they are published, without their weights: on the meta device shapes are computed, and nothing else.

`python -m tests.trainer.families.real` prints what is counted of each family's activations, as shares of what its facts say.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lorafleet.catalog.method import Shape
from trainer.adapters.bank import ActiveSlots, Bank
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

    @property
    def half_as_wide(self) -> "Real":
        """Of pictures with half the side."""
        channels, height, width = self.latents
        return replace(self, latents=(channels, height // 2, width // 2))


@dataclass
class Step:
    """What one step has to show."""

    predicted: Tensor
    gradient: Tensor | None  # of the adapter


class Counted:
    """Numbers of the tensors that autograd keeps, each once, without those that are there anyway."""

    def __init__(self, there: Collection[int]) -> None:
        self.there, self.sizes = set(there), dict[int, int]()
        self._alive: list[Tensor] = []  # another storage must not get the same address

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.there:
            self.sizes[storage._cdata] = storage.nbytes() // tensor.element_size()
            self._alive.append(tensor)
        return tensor

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


class _FusedAttention(torch.autograd.Function):
    """Keeps what the fused kernels do. The one that computes on the meta device keeps the matrices as well."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *more: Any) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1]))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (*(torch.empty_like(each) for each in ctx.saved_tensors[:3]), None)


def step(name: str, real: Real, target_modules: tuple[str, ...]) -> Step:
    """A forward and a backward pass of one row, with LoRA on these layers."""
    with META:
        model, bank = _adapted(name, real, target_modules)
        predicted = _predicted(model, bank, real)
        predicted.sum().backward()
    return Step(predicted, bank.flat.grad)


def num_kept(name: str, real: Real, target_modules: tuple[str, ...], *, recomputes: bool) -> int:
    """Numbers that are kept for the backward pass, without the weights and without attention matrices. Where blocks are recomputed
    in it: their inputs, what lies outside of them, and what the largest of them computes."""
    largest = 0
    with META:
        model, bank = _adapted(name, real, target_modules)
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        outside = Counted(weights)

        def block_apart(block: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
            nonlocal largest
            for tensor in tree_leaves((inputs, named)):
                if isinstance(tensor, Tensor):
                    outside(tensor)
            inside = Counted({*weights, *outside.sizes})
            with torch.autograd.graph.saved_tensors_hooks(inside, lambda tensor: tensor):
                computed = block(*inputs, **named)
            largest = max(largest, inside.total)
            return computed

        if recomputes:
            denoiser: Any = model.get_submodule(family(name).facts.denoiser.name)
            denoiser.enable_gradient_checkpointing(block_apart)
        with torch.autograd.graph.saved_tensors_hooks(outside, lambda tensor: tensor):
            _predicted(model, bank, real)
    return outside.total + largest


def _adapted(name: str, real: Real, target_modules: tuple[str, ...]) -> tuple[PackModel, Bank]:
    of = family(name)
    model = PackModel(of, {of.facts.denoiser.name: real.denoiser()}, trains_text=False)
    bank = model.add_bank(Kind("lora", RANK, target_modules, False, 0.0, "adamw"), 1, batch_invariant=False)
    bank.num_styles = 1
    return model, bank


def _fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _FusedAttention.apply(query, key, value)


def _predicted(model: PackModel, bank: Bank, real: Real) -> Tensor:
    """Not `model(…)`: there is no autocast for this device."""
    conditioning = {key: torch.empty(1, *shape) for key, shape in real.conditioning.items()}
    with patch.object(torch.nn.functional, "scaled_dot_product_attention", _fused), model.serving([ActiveSlots(bank, [0])]):
        return model.family.predict(model.parts, torch.empty(1, *real.latents), torch.empty(1), conditioning)


def of_facts(name: str, real: Real, target_modules: tuple[str, ...], *, recomputes: bool = False) -> float:
    """What is counted, as a share of what the family's facts say."""
    facts = family(name).facts
    first: Any = real.denoiser().get_submodule(facts.first_layer)
    told = facts.num_values(real.latents[-1] * real.latents[-2] * real.patch**2, recomputes=recomputes) * first.weight.shape[0]
    return num_kept(name, real, target_modules, recomputes=recomputes) / told


def every_linear(real: Real) -> tuple[str, ...]:
    """The ends of the names of all linear layers, as a spec may name them: what follows the number of a block."""
    names = [name for name, module in real.denoiser().named_modules() if isinstance(module, nn.Linear)]
    return tuple(dict.fromkeys(_BLOCK.sub("", name) for name in names))


def _print_all() -> None:
    from tests.trainer.families.rows import MEASURED

    for name, real in MEASURED.items():
        every, usual = every_linear(real), family(name).facts.denoiser.target_modules
        for recomputes in (False, True):
            shares = [
                f"{of_facts(name, each, targets, recomputes=recomputes):.2f}"
                for each in (real, real.half_as_wide)
                for targets in (every, usual)
            ]
            print(
                f"{name}, {'recomputed' if recomputes else 'kept'}: {shares[0]} of its facts with LoRA on every linear layer, "
                f"{shares[1]} on the usual ones; of pictures half as wide {shares[2]}, {shares[3]}"
            )


if __name__ == "__main__":
    _print_all()
