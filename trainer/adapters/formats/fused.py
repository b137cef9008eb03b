"""Adapters of several layers as one, for files whose model has these layers as one: exact, by blocks. Without the model.

Such a model computes q, k and v of an attention by one matrix, whose outputs are theirs one after another.
"""

from collections.abc import Mapping

import torch

from lorafleet.catalog.family import Family
from lorafleet.catalog.method import is_target
from lorafleet.catalog.part import Layers
from lorafleet.spec import AdapterSpec
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.protocol import Weights

Layer = tuple[Weights, int]  # its tensors, and their rank


def fused(adapter: Mapping[str, Weights], spec: AdapterSpec, family: Family, layers: Layers) -> dict[str, Layer]:
    """By canonical path of a module the layers of the file; one that is several of ours goes by the first of them that has an adapter.

    `adapter`: tensors by role, by the same paths.
    """
    method, denoiser = METHODS.get(spec.method), family.denoiser.name
    swapped = family.kohya_swapped(layers.num_outputs)
    found: dict[str, Layer] = {path: (tensors, spec.rank) for path, tensors in adapter.items()}
    for module, num_outputs in layers.num_outputs.items():
        path = f"{denoiser}.{module}"
        if path in found and is_target(module, swapped):  # the halves of its outputs lie in the other order there
            found[path] = method.with_outputs(adapter[path], torch.arange(num_outputs).roll(num_outputs // 2)), spec.rank
    for modules in layers.fused().values():
        paths = {f"{denoiser}.{module}": layers.num_outputs[module] for module in modules}
        there = [path for path in paths if path in found]
        if there:
            beside = [found.pop(path)[0] if path in found else num_outputs for path, num_outputs in paths.items()]
            found[there[0]] = method.side_by_side(beside), spec.rank * len(there)
    return found
