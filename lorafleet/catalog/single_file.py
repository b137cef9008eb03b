"""Checkpoints in one file, in the layout of the code that they were published with: told apart by their tensors' names. Pure.

The configs that such a file lacks are in `configs/FAMILY.json`, by part: those of the family's published bases.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lorafleet.catalog.method import Shape

ENDING = ".safetensors"
UNET = "model.diffusion_model."  # of CompVis's latent diffusion (github.com/CompVis/latent-diffusion), and of what followed it
_FIRST = f"{UNET}input_blocks.0.0.weight"
_CHANNELS = {9: "for inpainting", 8: "for editing (InstructPix2Pix)", 5: "with depth"}
_OTHERS = {  # a part of a name -> what has it
    "double_blocks.": "FLUX",
    "joint_blocks.": "Stable Diffusion 3",
    "distilled_guidance_layer.": "Chroma",
    "noise_refiner.": "Z-Image or Lumina",
    "lora_": "an adapter, no base",
    ".lora_A.": "an adapter, no base",
}


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """How a base of the family lies in one file."""

    parts: Mapping[str, str]  # part -> what its tensors' names begin with
    is_it: Callable[[Mapping[str, Shape]], bool]  # whether a UNet is of this family
    says_prediction: bool = True  # whether its objective is known: by its family, or by keys of its own


class NoSuchLayout(ValueError):
    """Why a file is no base that can be taken, as the end of a sentence whose subject it is."""


def told(layouts: Mapping[str, SingleFile], tensors: Mapping[str, Shape]) -> str:
    """The name of the family that the file is of. Raises NoSuchLayout."""
    if UNET + "input_blocks.0.0.bias" not in tensors or _FIRST not in tensors:
        raise NoSuchLayout(_of_another(layouts, tensors))
    channels = (*tensors[_FIRST], 0, 0)[1]
    if channels in _CHANNELS:
        raise NoSuchLayout(f"takes {channels} channels: it is a checkpoint {_CHANNELS[channels]}; use the one that it was made from")
    if f"{UNET}time_embed.cond_proj.weight" in tensors:
        raise NoSuchLayout("is an LCM, distilled to draw in a few steps; use the checkpoint that it was made from")
    if _begins(tensors, "conditioner.embedders.0.model.") and not _begins(tensors, "conditioner.embedders.1."):
        raise NoSuchLayout("is SDXL's refiner; use the base model")
    for name, layout in layouts.items():
        if layout.is_it(tensors):
            return name
    raise NoSuchLayout(_of_another(layouts, tensors))


def text_width(tensors: Mapping[str, Shape]) -> int:
    """Of the text that the UNet takes; 0: it takes none."""
    return next(((*shape, 0, 0)[1] for name, shape in tensors.items() if name.startswith(UNET) and name.endswith("attn2.to_k.weight")), 0)


def takes_sizes(tensors: Mapping[str, Shape]) -> bool:
    """Whether the UNet is told the sizes of pictures and the pooled text, as SDXL's."""
    return f"{UNET}label_emb.0.0.weight" in tensors


def prediction(tensors: Mapping[str, Shape]) -> dict[str, Any]:
    """What keys without meaning to the model say of the objective: people mark checkpoints of v-prediction so."""
    kind = {"prediction_type": "v_prediction"} if "v_pred" in tensors else {}
    return {**kind, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if kind and "ztsnr" in tensors else kind


def configs(family: str) -> dict[str, dict[str, Any]]:
    """Of the parts of the family's published bases."""
    return json.loads((files("lorafleet.catalog") / "configs" / f"{family}.json").read_text())


def _of_another(layouts: Mapping[str, SingleFile], tensors: Mapping[str, Shape]) -> str:
    found = next((what for mark, what in _OTHERS.items() if any(mark in name for name in tensors)), "a layout that is not known")
    return f"is {found}; of one file {', '.join(layouts)} are taken, and of all families folders as diffusers' save_pretrained writes them"


def _begins(tensors: Mapping[str, Shape], start: str) -> bool:
    return any(name.startswith(start) for name in tensors)
