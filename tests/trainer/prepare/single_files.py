"""Writes a base in diffusers' folders as one file in the layout that the original code has, by rules written down a second time.

The original UNet is three lists of blocks (tests.trainer.sdxl.kohya_names counts them); the autoencoder counts its levels from the other
end on the way up, and has convolutions of 1 x 1 for attention; OpenCLIP has one matrix for query, key and value.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.sdxl import kohya_names

_RESIDUAL = {"norm1": "in_layers.0", "norm2": "out_layers.0", **kohya_names._RESIDUAL}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP_OUTSIDE = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
CLIP = {"sd1": "cond_stage_model.transformer.text_model.", "sdxl": "conditioner.embedders.0.transformer.text_model."}
OPEN_CLIP = {"sd2": ("text_encoder", "cond_stage_model.model."), "sdxl": ("text_encoder_2", "conditioner.embedders.1.model.")}


def write(base: Path, family: str, to: Path, **more: Tensor) -> Path:
    """`more`: tensors that the file has besides."""
    config = json.loads((base / "unet/config.json").read_text())
    tensors = {f"model.diffusion_model.{_unet(name, config)}": tensor for name, tensor in _weights(base / "unet").items()}
    levels = len(json.loads((base / "vae/config.json").read_text())["block_out_channels"])
    for name, tensor in _weights(base / "vae").items():
        original, whole = autoencoder(name, tensor, levels)
        tensors[f"first_stage_model.{original}"] = whole
    if family in CLIP:
        tensors |= {f"{CLIP[family]}{name}": tensor for name, tensor in _text(base / "text_encoder").items()}
        tensors[f"{CLIP[family]}embeddings.position_ids"] = torch.arange(3)
    if family in OPEN_CLIP:
        part, prefix = OPEN_CLIP[family]
        tensors |= {f"{prefix}{name}": tensor for name, tensor in _open_clip(_text(base / part)).items()}
        tensors[f"{prefix}logit_scale"] = torch.ones(())
    save_file({name: tensor.contiguous() for name, tensor in {**tensors, **more}.items()}, to)
    return to


def _weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def _text(folder: Path) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): tensor for name, tensor in _weights(folder).items()}


def _unet(name: str, config: Mapping[str, Any]) -> str:
    module, _, kind = name.rpartition(".")
    if module == "conv_norm_out":
        return f"out.0.{kind}"
    places = {**kohya_names._OUTSIDE, **kohya_names._places(config)}
    place = next(place for place in places if module == place or module.startswith(f"{place}."))
    inner = module.removeprefix(place).removeprefix(".")
    if ".resnets." in f".{place}":
        inner = _RESIDUAL[inner]
    elif place.endswith("samplers.0"):
        inner = "op" if "down" in place.split(".")[-2] else "conv"
    return ".".join(filter(None, (places[place], inner, kind)))


def autoencoder(name: str, tensor: Tensor, levels: int) -> tuple[str, Tensor]:
    """One of its tensors as it is there."""
    original = _autoencoder(name, levels)
    return original, tensor[:, :, None, None] if ".attn_1." in original and tensor.ndim == 2 else tensor


def _autoencoder(name: str, levels: int) -> str:
    side, *path, kind = name.split(".")
    if side in ("quant_conv", "post_quant_conv") or path[0] in ("conv_in", "conv_out"):
        return name
    if path[0] == "conv_norm_out":
        return f"{side}.norm_out.{kind}"
    if path[0] == "mid_block":
        where, number, *layer = path[1:]
        if where == "attentions":
            return f"{side}.mid.attn_1.{_VAE_ATTENTION['.'.join(layer)]}.{kind}"
        return f"{side}.mid.block_{int(number) + 1}.{_shortcut(layer[0])}.{kind}"
    level, what, number, layer = path[1:5]
    place = f"{side}.down.{level}" if path[0] == "down_blocks" else f"{side}.up.{levels - 1 - int(level)}"
    if what == "resnets":
        return f"{place}.block.{number}.{_shortcut(layer)}.{kind}"
    return f"{place}.{'downsample' if what == 'downsamplers' else 'upsample'}.conv.{kind}"


def _shortcut(layer: str) -> str:
    return "nin_shortcut" if layer == "conv_shortcut" else layer


def _open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _OPEN_CLIP_OUTSIDE:
            found[_OPEN_CLIP_OUTSIDE[name]] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif ".q_proj." in name:
            kind = name.rpartition(".")[2]
            whole = torch.cat([tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
            found[f"transformer.resblocks.{name.split('.')[2]}.attn.in_proj_{kind}"] = whole
        elif not any(f".{letter}_proj." in name for letter in "kv"):
            number, module = name.split(".")[2], ".".join(name.split(".")[3:-1])
            found[f"transformer.resblocks.{number}.{_OPEN_CLIP[module]}.{name.rpartition('.')[2]}"] = tensor
    return found
