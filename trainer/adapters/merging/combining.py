"""Several adapters as one LoRA: their weighted sum, exact or of a lower rank, or what PEFT's own functions merge them to.

An adapter of any method is first what it adds to its layers' weights (files.updates). What is said of the error is measured on the numbers
that are written: against the weighted sum of the updates, of weights by the Frobenius norm, of outputs by the spectral norm, which is the
largest difference of outputs that an input of length one can make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from lorafleet.errors import InvalidInput
from lorafleet.merge_rules import BY_CHANCE, CAT, PRUNING, WITH_SIGNS
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.singular import LowRank, Singular, singular
from trainer.adapters.files.updates import Weights
from trainer.adapters.merging.recipe import DENSITY, Recipe
from trainer.keyed import Key, Purpose
from trainer.typed_torch import fork_rng, manual_seed

BASES = ("lorafleet.base_digest", "ss_new_sd_model_hash", "ss_sd_model_hash")  # in metadata, the most telling first


Terms = Mapping[str, Sequence[tuple[float, Module]]]


@dataclass(frozen=True)
class Ingredient:
    """An adapter and its weight. `name`: for people."""

    name: str
    adapter: AdapterFile
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Combined:
    """`weight_error`: the size of the difference from the weighted sum of the updates, over the size of that; `output_error`: the largest
    difference of a module's outputs over its largest output, and the module."""

    adapter: AdapterFile
    weight_error: float
    output_error: tuple[float, str]


def combine(
    given: Sequence[Ingredient],
    recipe: Recipe,
    weights: Weights | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    on_any_base: bool = False,
) -> Combined:
    """One adapter of all. `weights`: of the base, which DoRA and OFT need; `dtype`: that it is written in; `on_any_base`: also where
    they were trained on different ones of a family.

    Raises InvalidInput, with all that is wrong.
    """
    _check(list(recipe.problems()))
    terms = weighted(given, recipe, on_any_base=on_any_base)
    family = _one_family(given)
    modules: list[Module] = []
    left_out, whole, worst = 0.0, 0.0, (0.0, "")
    for path, parts in terms.items():
        module, exact = _combined(path, parts, recipe, weights, family, dtype)
        gap = exact.minus(updates.low_rank_of(module)).singular
        modules.append(module)
        left_out, whole = left_out + gap.size**2, whole + exact.singular.size**2
        largest = exact.singular.largest_output
        worst = max(worst, (gap.largest_output / largest if largest else 0.0, path))
    first = given[0].adapter
    adapter = AdapterFile(
        format=first.format,
        families=(family,),
        modules=tuple(modules),
        metadata={},
        num_layers=max(each.adapter.num_layers for each in given),
    )
    return Combined(adapter=adapter, weight_error=(left_out / whole) ** 0.5 if whole else 0.0, output_error=worst)


def weighted(given: Sequence[Ingredient], recipe: Recipe, *, on_any_base: bool = False) -> Terms:
    """By module what is summed there, each with the weight that it has as its adapter's and its blocks'. Raises InvalidInput: they do not
    belong together, or nothing is left."""
    _one_family(given)
    _check([*([] if on_any_base else _bases(given)), *_misfits(given)])
    return _terms(given, recipe)


# What goes into it


def _one_family(given: Sequence[Ingredient]) -> str:
    """That all may be of, the likeliest by the first."""
    shared = reduce(lambda known, each: [name for name in known if name in each.adapter.families], given, list(given[0].adapter.families))
    if not shared:
        told = "; ".join(f"{each.name} is of {' or '.join(each.adapter.families)}" for each in given)
        raise InvalidInput(f"the adapters are of different families: {told}")
    return shared[0]


def _bases(given: Sequence[Ingredient]) -> list[str]:
    """What is wrong with the bases that they were trained on, as far as the files tell."""
    for key in BASES:
        told = {each.adapter.metadata[key]: each.name for each in given if each.adapter.metadata.get(key)}
        if len(told) > 1:
            bases = "; ".join(f"{name} on {digest}" for digest, name in told.items())
            return [f"the adapters were trained on different bases: {bases} ({key}); --force combines them all the same"]
    return []


def _misfits(given: Sequence[Ingredient]) -> list[str]:
    """Layers that several adapters have, of other shapes: they are of bases that only look alike."""
    found: list[str] = []
    shapes: dict[str, tuple[str, list[int]]] = {}
    for each in given:
        for module in each.adapter.modules:
            path = module.paths[0]
            if len(module.paths) > 1:
                found.append(f"{each.name}: {', '.join(module.paths)} are one layer in the file, and {module.method} on it cannot be cut")
            elif (shape := _shape(module)) is not None:
                name, known = shapes.setdefault(path, (each.name, shape))
                if known != shape:
                    found.append(f"{path} is {known} in {name}, but {shape} in {each.name}: they are of other bases")
    return found


def _shape(module: Module) -> list[int] | None:
    """[out, in] of a layer, as far as LoRA's factors tell."""
    of = module.tensors
    return [len(of["B"]), of["A"].shape[1]] if "A" in of and "B" in of and "mid" not in of else None


def _check(problems: Sequence[str]) -> None:
    if problems:
        raise InvalidInput("\n".join(problems))


def _terms(given: Sequence[Ingredient], recipe: Recipe) -> Terms:
    found: dict[str, list[tuple[float, Module]]] = {}
    for each in given:
        for module in each.adapter.modules:
            path = module.paths[0]
            if weight := each.weight * recipe.weight_of(path):
                found.setdefault(path, []).append((weight, module))
    if not found:
        raise InvalidInput("nothing is left: all weights are zero")
    paths = sorted({module.paths[0] for each in given for module in each.adapter.modules})
    for pattern, _ in recipe.blocks:
        alone = Recipe(blocks=((pattern, 0.0),))
        if all(alone.weight_of(path) for path in paths):
            raise InvalidInput(f"--block: {pattern} matches no module; there is {', '.join(paths[:3])}")
    return dict(sorted(found.items()))


# One module


def _combined(
    path: str, parts: Sequence[tuple[float, Module]], recipe: Recipe, weights: Weights | None, family: str, dtype: torch.dtype
) -> tuple[Module, LowRank]:
    """(the module as it is written, the weighted sum of the updates)."""
    weight = None if weights is None else weights.get(path)
    exact = [(scale, _exact(module, weight)) for scale, module in parts]
    total = LowRank.sum_of(exact)
    result = total
    if recipe.kind != CAT:
        wanted = total.singular if recipe.kind not in PRUNING else singular(_pruned(path, exact, recipe))
        result = wanted.nearest(_rank(wanted, parts, recipe))
    return result.as_module(path, _inputs(parts, weight, result, family), dtype), total


def _exact(module: Module, weight: Tensor | None) -> LowRank:
    """What it adds to its layer, in factors: LoRA's own, of others those of their singular values."""
    if module.method == "lora":
        return updates.low_rank_of(module)
    found = updates.singular_of(module, weight)
    return found.nearest(found.rank)


def _rank(wanted: Singular, parts: Sequence[tuple[float, Module]], recipe: Recipe) -> int:
    if recipe.energy is not None:
        return wanted.rank_for(recipe.energy)
    return recipe.rank or max(module.rank for _, module in parts)


def _pruned(path: str, terms: Sequence[tuple[float, LowRank]], recipe: Recipe) -> Tensor:
    """PEFT's own merge of the updates' numbers."""
    from peft.utils import merge_utils  # brings bitsandbytes, which says on loading what it would like to have

    numbers = [term.b @ term.a for _, term in terms]
    scales = torch.tensor([scale for scale, _ in terms], dtype=torch.float64)
    merge = getattr(merge_utils, recipe.kind.removesuffix("_svd"))
    signs = {"majority_sign_method": recipe.majority} if recipe.kind in WITH_SIGNS else {}
    with fork_rng(devices=[]):
        if recipe.kind in BY_CHANCE:
            manual_seed(int(Key(recipe.seed, "merge").generator(Purpose.PRUNING, path).integers(2**63)))
        density = DENSITY if recipe.density is None else recipe.density
        return merge(numbers, scales, density=density, **signs)


def _inputs(parts: Sequence[tuple[float, Module]], weight: Tensor | None, result: LowRank, family: str) -> tuple[int, ...]:
    """The shape of the layer's inputs, with its kernel where it is a convolution."""
    if weight is not None:
        return tuple(weight.shape[1:])
    telling = next((module for _, module in parts if "A" in module.tensors), parts[0][1])
    return updates.shape_of_inputs(telling, result.a.shape[1], family)
