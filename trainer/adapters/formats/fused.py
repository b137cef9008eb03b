"""Adapters of several layers as one, for files whose model has these layers as one: exact, by blocks. Without the model.

Such a model computes q, k and v of an attention by one matrix, whose outputs are theirs one after another.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from lorafleet.catalog.family import Family
from lorafleet.catalog.method import Fusing, is_target
from lorafleet.catalog.part import Layers
from lorafleet.spec import AdapterSpec
from trainer.adapters.layout import scaling
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.protocol import Weights


class Layer(NamedTuple):
    """A layer of a file."""

    tensors: Weights
    rank: int
    scaling: float


def fused(adapter: Mapping[str, Weights], spec: AdapterSpec, family: Family, layers: Layers) -> dict[str, Layer]:
    """By canonical path of a module the layers of the file; one that is several of ours goes by the first of them that has an adapter.

    `adapter`: tensors by role, by the same paths.
    """
    method, denoiser = METHODS.get(spec.method), family.denoiser.name
    swapped = family.kohya_swapped(layers.num_outputs)
    found = {path: Layer(tensors, spec.at(path).rank, scaling(spec.at(path))) for path, tensors in adapter.items()}
    if method.facts.fusing is Fusing.APART:
        return found
    for module, num_outputs in layers.num_outputs.items():
        path = f"{denoiser}.{module}"
        if path in found and is_target(module, swapped):  # the halves of its outputs lie in the other order there
            swapped_halves = torch.arange(num_outputs).roll(num_outputs // 2)
            found[path] = found[path]._replace(tensors=method.with_outputs(adapter[path], swapped_halves))
    for modules in layers.fused().values():
        paths = {f"{denoiser}.{module}": layers.num_outputs[module] for module in modules}
        there = [path for path in paths if path in found]
        if there:
            layers_there = [found.pop(path) for path in there]
            one = layers_there[0].scaling
            tensors = dict(zip(there, (_scaled(layer, one) for layer in layers_there), strict=True))
            beside = [tensors.get(path, num_outputs) for path, num_outputs in paths.items()]
            found[there[0]] = Layer(method.side_by_side(beside), sum(layer.rank for layer in layers_there), one)
    return found


def with_one_alpha(found: Mapping[str, Layer], spec: AdapterSpec) -> Mapping[str, Layer]:
    """The same layers, where overrides gave them alphas of their own; B takes what they differ by.

    diffusers 0.42 finds no alpha that is not the usual one on the attention of a UNet in kohya's names: it looks for it by a name of old.
    """
    if not spec.overrides or "B" not in METHODS.get(spec.method).facts.names:
        return found
    alpha = scaling(spec) * spec.rank
    return {path: Layer(_scaled(each, alpha / each.rank), each.rank, alpha / each.rank) for path, each in found.items()}


def _scaled(layer: Layer, to: float) -> Weights:
    """Its tensors as they are with another scaling: B takes the rest."""
    if layer.scaling == to:
        return layer.tensors
    return {**layer.tensors, "B": layer.tensors["B"] * (layer.scaling / to)}
