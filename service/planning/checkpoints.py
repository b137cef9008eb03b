"""The shapes of a base in one file: from its header alone, whose names are those of the original code."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from lorafleet.catalog import FAMILIES, Family
from lorafleet.catalog.method import Shape
from lorafleet.catalog.single_file import NoSuchLayout, SingleFile, configs, told
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
    """`given`: the tensors of parts that are not the file's own, by part, in diffusers' names."""
    layouts = {family.name: family.single_file for family in FAMILIES.all() if family.single_file is not None}
    try:
        family = FAMILIES.get(told(layouts, tensors))
    except NoSuchLayout as why:
        return Found(why_not=f"base_model.uri: {uri} {why}")
    return Found(family=family, shapes=_shapes(family, layouts[family.name], tensors, given))


def _shapes(family: Family, layout: SingleFile, tensors: Mapping[str, Shape], given: Mapping[str, Mapping[str, Shape]]) -> BaseShapes:
    parts = {name: given.get(name) or _of_part(tensors, prefix) for name, prefix in layout.parts.items()}
    known, denoiser = configs(family.name), parts[family.denoiser.name]
    return BaseShapes(
        layers=_layers(denoiser),
        num_params=_num_params(denoiser),
        num_other_params=sum(_num_params(part) for name, part in parts.items() if name != family.denoiser.name),
        width=(*denoiser.get("input_blocks.0.0.weight", ()), *denoiser.get("conv_in.weight", ()), 1)[0],
        latent_side=known[family.denoiser.name].get("sample_size"),
        pixels_per_latent=2 ** (len(known[family.autoencoder.name]["block_out_channels"]) - 1),
        text_layers={part.name: _layers(parts[part.name]) for part in family.text_encoders},
    )


def _of_part(tensors: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {name.removeprefix(prefix): shape for name, shape in tensors.items() if name.startswith(prefix)}


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
