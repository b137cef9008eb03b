"""The shapes of a base in one file: from its header alone, whose names are those of the original code."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from lorafleet.catalog import FAMILIES, Family, single_files
from lorafleet.catalog.method import Shape
from lorafleet.catalog.part import Part
from lorafleet.catalog.single_file import NoSuchLayout, SingleFile, Told, absent, configs, lacking, told
from service.control.memory import BaseShapes

# Ends of the names of layers that adapters may sit on, as specs name them.
_RESIDUAL = {"in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
_IN_PROJ = "attn.in_proj_weight"  # OpenCLIP's: query, key and value in one


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a file's header tells: the family with its shapes, or why it is of none."""

    family: Family | None = None
    shapes: BaseShapes | None = None
    why_not: str | None = None


def found(uri: str, tensors: Mapping[str, Shape], given: Mapping[str, Mapping[str, Shape]]) -> Found:
    """`given`: the tensors of parts that are not the file's own, by part, in diffusers' names; none of a part without weights."""
    layouts = single_files()
    try:
        seen = told(layouts, tensors)
        parts = _parts(layouts[seen.family], seen, given)
    except NoSuchLayout as why:
        return Found(why_not=f"base_model.uri: {uri} {why}")
    family, layout = FAMILIES.get(seen.family), layouts[seen.family]
    there = family.without(absent(family.parts, seen, given)).parts
    lacks = [f"base_model.uri: {uri} {what}" for what in lacking(there, layout, seen, given)]
    return Found(family=family, shapes=_shapes(family, parts), why_not="\n".join(lacks) or None)


def _parts(layout: SingleFile, seen: Told, given: Mapping[str, Mapping[str, Shape]]) -> dict[str, Mapping[str, Shape]]:
    """The tensors of each part; a transformer's by diffusers' names."""
    rows = seen.rows(layout)
    own = {**seen.tensors, **({} if rows is None else {layout.denoiser: {name: each.shape for name, each in rows.items()}})}
    return {**own, **{part: tensors for part, tensors in given.items() if tensors}}


def _shapes(family: Family, parts: Mapping[str, Mapping[str, Shape]]) -> BaseShapes:
    known, denoiser = configs(family.name), parts[family.denoiser.name]
    first = (denoiser.get(f"{name}.weight", ()) for name in ("input_blocks.0.0", family.first_layer))
    texts, autoencoder = family.text_encoders, family.autoencoder
    return BaseShapes(
        layers=_layers(denoiser),
        num_params=_num_params(denoiser),
        num_other_params=_num_of(parts, autoencoder, *(part for part in texts if not part.is_large)),
        num_large_params=_num_of(parts, *(part for part in texts if part.is_large)),
        width=next((shape[0] for shape in first if shape), 1),
        latent_side=known[family.denoiser.name].get("sample_size"),
        pixels_per_latent=2 ** (len(known[autoencoder.name][autoencoder.levels]) - 1),
        text_layers={part.name: _layers(parts.get(part.name, {})) for part in texts},
    )


def _num_of(parts: Mapping[str, Mapping[str, Shape]], *of: Part) -> int:
    return sum(_num_params(parts.get(part.name, {})) for part in of)


def _layers(tensors: Mapping[str, Shape]) -> dict[str, Shape]:
    layers: dict[str, Shape] = {}
    for name, shape in tensors.items():
        if name.endswith(_IN_PROJ) and len(shape) == 2:
            block = name.removesuffix(_IN_PROJ)
            layers |= {f"{block}self_attn.{letter}_proj": (shape[0] // 3, shape[1]) for letter in "qkv"}
        elif name.endswith(".weight") and len(shape) in (2, 4):
            layers[_renamed(name.removesuffix(".weight"))] = shape
    return layers


def _renamed(module: str) -> str:
    return next((f"{module.removesuffix(end)}{new}" for end, new in _RESIDUAL.items() if module.endswith(end)), module)


def _num_params(tensors: Mapping[str, Shape]) -> int:
    return sum(map(prod, tensors.values()))
