"""Turns a checkpoint in one file into the parts that diffusers' folders have, by diffusers' own converters. What the file has is checked
against the family's published configs first: a tensor that is missing, or of another size, is named."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders import single_file_utils as ldm
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorafleet.catalog.part import Part
from lorafleet.catalog.single_file import UNET
from trainer.untrusted import Refused

_EMA = "model_ema."
_TEXT = "text_model."
Tensors = Mapping[str, Tensor]


def converted(part: Part, prefix: str, config: Mapping[str, Any], checkpoint: Tensors) -> dict[str, Tensor]:
    """The tensors of that part by the names in diffusers' folders. `checkpoint`: all tensors of the file. Raises Refused."""
    kind = part.classes[0]
    expected = _on_meta(kind, config).state_dict()
    found = {name.removeprefix(_TEXT): tensor for name, tensor in _CONVERTERS[kind](checkpoint, prefix, config).items()}
    names = {name.removeprefix(_TEXT): name for name in expected}
    if missing := sorted(names.keys() - found.keys()):
        raise Refused(f"lacks {len(missing)} tensors of its {part.name}, such as {names[missing[0]]}")
    if other := [name for name, whole in names.items() if found[name].shape != expected[whole].shape]:
        shapes = f"{tuple(found[other[0]].shape)}, not {tuple(expected[names[other[0]]].shape)}"
        raise Refused(f"has a {part.name} of another size: {names[other[0]]} is {shapes}")
    return {whole: found[name].contiguous() for name, whole in names.items()}


def _on_meta(kind: str, config: Mapping[str, Any]) -> Any:
    fields = {name: value for name, value in config.items() if name != "_class_name"}
    with torch.device("meta"):
        match kind:
            case "UNet2DConditionModel":
                return UNet2DConditionModel(**fields)
            case "AutoencoderKL":
                return AutoencoderKL(**fields)
            case "CLIPTextModelWithProjection":
                return CLIPTextModelWithProjection(CLIPTextConfig(**fields))
            case _:
                return CLIPTextModel(CLIPTextConfig(**fields))


def _unet(checkpoint: Tensors, prefix: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    return ldm.convert_ldm_unet_checkpoint(_averaged(checkpoint), config)  # pyright: ignore[reportArgumentType]


def _averaged(checkpoint: Tensors) -> dict[str, Tensor]:
    """Of a file that holds the UNet twice, the exponential moving average; its names there have lost their dots."""
    flat = {name: f"{_EMA}{name.removeprefix('model.').replace('.', '')}" for name in checkpoint if name.startswith(UNET)}
    return {name: checkpoint[flat.get(name, name)] if flat.get(name) in checkpoint else tensor for name, tensor in checkpoint.items()}


def _autoencoder(checkpoint: Tensors, prefix: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    ours = {name: tensor for name, tensor in checkpoint.items() if name.startswith(prefix)}
    return ldm.convert_ldm_vae_checkpoint(ours, config)


def _text(checkpoint: Tensors, prefix: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """CLIP's as transformers names it, or OpenCLIP's."""
    if prefix.endswith("transformer."):
        return ldm.convert_ldm_clip_checkpoint({name: tensor for name, tensor in checkpoint.items() if name.startswith(prefix)})
    like = SimpleNamespace(config=SimpleNamespace(hidden_size=config["hidden_size"]))
    return ldm.convert_open_clip_checkpoint(like, checkpoint, prefix=prefix)


_CONVERTERS: Mapping[str, Callable[[Tensors, str, Mapping[str, Any]], dict[str, Tensor]]] = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _autoencoder,
    "CLIPTextModel": _text,
    "CLIPTextModelWithProjection": _text,
}
