"""What SDXL's modules are called in kohya's files, written from how the original network is built: sgm's UNet, both encoders of CLIP.

The original UNet is three lists, `input_blocks`, `middle_block` and `output_blocks`: every residual layer is a block of its own, with its
transformer beside it; so is the first convolution, and each downsampling. An upsampling is the last thing in its level's last block.
"""

from collections.abc import Mapping
from typing import Any

_RESIDUAL = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}


def kohya_name(module: str, config: Mapping[str, Any]) -> str:
    """Of a module by the trainer's name, such as `unet.down_blocks.1.…` and `text_encoder_2.text_model.…`; `config`: the UNet's."""
    part, _, path = module.partition(".")
    match part:
        case "unet":
            return f"lora_unet_{_sgm(path, config).replace('.', '_')}"
        case "text_encoder" | "text_encoder_2":
            number = 1 if part == "text_encoder" else 2
            return f"lora_te{number}_text_model_{path.removeprefix('text_model.').replace('.', '_')}"
    raise ValueError(module)


def _sgm(path: str, config: Mapping[str, Any]) -> str:
    places = {**_OUTSIDE, **_places(config)}
    for place, sgm in places.items():
        if path == place or path.startswith(f"{place}."):
            inner = path.removeprefix(place).removeprefix(".")
            if ".resnets." in f".{place}":
                inner = _RESIDUAL[inner]
            elif place.endswith("samplers.0"):
                inner = {"downsamplers.0": "op", "upsamplers.0": "conv"}[".".join(place.split(".")[-2:])]
            return f"{sgm}.{inner}" if inner else sgm
    raise ValueError(path)


def _places(config: Mapping[str, Any]) -> dict[str, str]:
    """By diffusers' name of each layer the original's, counted as the original's constructor appends its blocks."""
    layers = config["layers_per_block"]
    places = {f"mid_block.{ours}": theirs for ours, theirs in _MIDDLE.items()}
    number = 1  # the first convolution is block 0
    for level, kind in enumerate(config["down_block_types"]):
        for layer in range(layers):
            places[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            if "CrossAttn" in kind:
                places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        if level < len(config["down_block_types"]) - 1:
            places[f"down_blocks.{level}.downsamplers.0"] = f"input_blocks.{number}.0"
            number += 1
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(layers + 1):
            places[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            if "CrossAttn" in kind:
                places[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        if level < len(config["up_block_types"]) - 1:
            places[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{2 if 'CrossAttn' in kind else 1}"
    return places
