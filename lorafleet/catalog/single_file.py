"""Checkpoints in one file, in the layout of the code that they were published with: told apart by their tensors' names. Pure.

The configs that such a file lacks are in `configs/FAMILY.json`, by part: those of the family's published bases. What of them the shapes of
its tensors tell is read there.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lorafleet.catalog.method import Shape
from lorafleet.catalog.original import Misshapen, Original, Rows, rows
from lorafleet.catalog.part import Config, Part, PartKind

ENDING = ".safetensors"
_NOT_TAKEN = {  # the end of a file's name -> what such a file is, and what to do
    ".gguf": "is GGUF, whose weights are quantised; name what it was made from",
    ".sft": f"is a safetensors file of another ending; rename it to end in {ENDING}",
    **dict.fromkeys((".ckpt", ".pt", ".pth", ".bin"), "is pickled, and nothing is unpickled; save it as safetensors"),
}
UNET = ("model.diffusion_model.",)  # of CompVis's latent diffusion (github.com/CompVis/latent-diffusion), and of what followed it
TRANSFORMER = (*UNET, "diffusion_model.", "transformer.", "")  # of ComfyUI's checkpoints and saved models, of trainers, as published
VAE = ("first_stage_model.", "vae.")
CLIP_L = ("text_encoders.clip_l.transformer.",)  # of Stability's files of Stable Diffusion 3, and of ComfyUI's checkpoints
CLIP_G = ("text_encoders.clip_g.transformer.",)
T5 = ("text_encoders.t5xxl.transformer.",)
_BESIDE = (*VAE, "text_encoders.", "cond_stage_model.", "conditioner.", "model_ema.")  # what lies beside a denoiser that has no prefix
_FIRST = "input_blocks.0.0.weight"
UNET_MARKS = (_FIRST, "input_blocks.0.0.bias")
_CHANNELS = {9: "for inpainting", 8: "for editing (InstructPix2Pix)", 5: "with depth"}
_OTHERS = {  # a part of a name -> what has it
    "nerf_": "Chroma1-Radiance, which draws pixels",
    "double_blocks.": "a FLUX, or the like",
    "joint_blocks.": "a Stable Diffusion 3, or the like",
    "txtfusion.": "a Krea 2",
    "noise_refiner.": "a Z-Image or Lumina",
    "lora_": "an adapter, no base",
    ".lora_A.": "an adapter, no base",
    "transformer_blocks.": "a transformer by diffusers' names, which belongs in a folder with its config: name that in base_model.parts",
}
_QUANTISED = {  # the end of a name -> what was done to the weights
    "scaled_fp8": "scaled fp8",
    ".scale_weight": "scaled fp8",
    ".weight_scale": "scaled fp8 or int8",
    ".comfy_quant": "scaled fp8 or int8",
    ".absmax": "bitsandbytes' 4 or 8 bits",
    ".quant_map": "bitsandbytes' 4 or 8 bits",
    ".SCB": "bitsandbytes' 8 bits",
    ".qweight": "4 bits",
    ".wscales": "4 bits (SVDQuant)",
}

Tensors = Mapping[str, Shape]


class NoSuchLayout(ValueError):
    """Why a file is no base that can be taken, as the end of a sentence whose subject it is."""


def nothing_read(tensors: Tensors) -> Mapping[str, Config]:
    return {}


def is_told_by_marks(denoiser: Tensors) -> bool:
    return True


def not_refused(tensors: Tensors) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """How a base of the family lies in one file. Of a denoiser's tensors it is asked without what is in front of their names."""

    denoiser: str
    parts: Mapping[str, tuple[str, ...]]  # part -> what its tensors' names may begin with, of which the first that is there counts
    marks: tuple[str, ...]  # tensors that a denoiser of this family has, and those of the others together have not
    is_it: Callable[[Tensors], bool] = is_told_by_marks  # whether a denoiser that has them is of this family
    original: Original | None = None  # of a transformer
    read: Callable[[Tensors], Mapping[str, Config]] = nothing_read  # by part what of the configs a denoiser's tensors tell
    refusal: Callable[[Tensors], str | None] = not_refused  # why one of this family is none to train, as the end of a sentence
    lacks_scheduler: str = ""  # what its schedule cannot be told of, where bases with the same tensors have several; nothing: it is known


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a file is."""

    family: str
    tensors: Mapping[str, Tensors]  # of its parts, without what is in front of their names
    prefixes: Mapping[str, str]  # this, by part

    def rows(self, layout: SingleFile) -> dict[str, Rows] | None:
        """How a transformer's tensors by diffusers' names lie in the file; None: of a UNet. Raises NoSuchLayout."""
        try:
            return rows(layout.original, self.tensors[layout.denoiser]) if layout.original else None
        except Misshapen as why:
            raise NoSuchLayout(str(why)) from None


def told(layouts: Mapping[str, SingleFile], tensors: Tensors) -> Told:
    """Of which family the file is, and what it has. Raises NoSuchLayout."""
    if how := next((what for name in tensors for end, what in _QUANTISED.items() if name.endswith(end)), None):
        raise NoSuchLayout(f"is quantised ({how}); use the weights that it was made from: training.precision quantises them as they load")
    _refuse_unets(tensors)
    for prefix in TRANSFORMER:
        denoiser = _without(tensors, prefix)
        for name, layout in layouts.items():
            if prefix in layout.parts[layout.denoiser] and denoiser.keys() >= set(layout.marks) and layout.is_it(denoiser):
                return _told(name, layout, tensors, prefix)
    raise NoSuchLayout(_of_another(layouts, tensors))


def not_taken(name: str) -> str | None:
    """Why a file of this name is no base, as the end of a sentence whose subject it is; None: it may be one, or a folder."""
    return next((what for end, what in _NOT_TAKEN.items() if name.endswith(end)), None)


def lacking(parts: Iterable[Part], layout: SingleFile, found: Told, given: Collection[str]) -> Iterator[str]:
    """What the base lacks that is neither in the file nor `given` with it: ends of sentences whose subject it is, and what to do."""
    for part in parts:
        field = f"base_model.parts.{part.name}"
        if part.name in given or part.name in found.tensors:
            continue
        if part.weights_name or (part.kind is PartKind.TOKENIZER and not is_clips(part)):
            yield f"lacks {part.name}; name its folder in {field}"
        elif part.kind is PartKind.SCHEDULER and layout.lacks_scheduler:
            yield f"does not say {layout.lacks_scheduler}; name a scheduler's folder in {field}"


def absent(parts: Iterable[Part], found: Told, given: Collection[str]) -> frozenset[str]:
    """The optional parts that the base is without: no encoder and no tokenizer of them is in the file or `given` with it."""
    optional = frozenset(part.name for part in parts if part.is_optional)
    return frozenset() if optional.intersection((*found.tensors, *given)) else optional


def is_clips(tokenizer: Part) -> bool:
    """Whether its vocabulary is CLIP's, which is the same in all bases."""
    return any(built.startswith("CLIP") for built in tokenizer.classes)


def text_width(denoiser: Tensors) -> int:
    """Of the text that a UNet takes; 0: it takes none."""
    return next(((*shape, 0, 0)[1] for name, shape in denoiser.items() if name.endswith("attn2.to_k.weight")), 0)


def takes_sizes(denoiser: Tensors) -> bool:
    """Whether a UNet is told the sizes of pictures and the pooled text, as SDXL's."""
    return "label_emb.0.0.weight" in denoiser


def prediction(tensors: Tensors) -> dict[str, Any]:
    """What keys without meaning to the model say of the objective: people mark checkpoints of v-prediction so."""
    kind = {"prediction_type": "v_prediction"} if "v_pred" in tensors else {}
    return {**kind, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if kind and "ztsnr" in tensors else kind


def configs(family: str) -> dict[str, dict[str, Any]]:
    """Of the parts of the family's published bases."""
    return json.loads((files("lorafleet.catalog") / "configs" / f"{family}.json").read_text())


def number_of(tensors: Tensors, blocks: str) -> int:
    """How many blocks there are of that list."""
    numbers = {name.removeprefix(f"{blocks}.").partition(".")[0] for name in tensors if name.startswith(f"{blocks}.")}
    return max((int(number) + 1 for number in numbers if number.isdecimal() and len(number) < 6), default=0)


def side(tensors: Tensors, name: str, dimension: int) -> int:
    """Of a tensor that is there; 0: it has no such dimension."""
    return (*tensors.get(name, ()), *(0,) * (dimension + 1))[dimension]


def _told(family: str, layout: SingleFile, tensors: Tensors, prefix: str) -> Told:
    starts = {layout.denoiser: prefix}
    for part, known in layout.parts.items():
        if part != layout.denoiser and (start := next((each for each in known if _begins(tensors, each)), None)):
            starts[part] = start
    found = Told(family=family, tensors={part: _without(tensors, start) for part, start in starts.items()}, prefixes=starts)
    if why := layout.refusal(found.tensors[layout.denoiser]):
        raise NoSuchLayout(why)
    return found


def _refuse_unets(tensors: Tensors) -> None:
    unet = _without(tensors, *UNET)
    if not unet.keys() >= set(UNET_MARKS):
        return
    if (channels := side(unet, _FIRST, 1)) in _CHANNELS:
        raise NoSuchLayout(f"takes {channels} channels: it is a checkpoint {_CHANNELS[channels]}; use the one that it was made from")
    if "time_embed.cond_proj.weight" in unet:
        raise NoSuchLayout("is an LCM, distilled to draw in a few steps; use the checkpoint that it was made from")
    if _begins(tensors, "conditioner.embedders.0.model.") and not _begins(tensors, "conditioner.embedders.1."):
        raise NoSuchLayout("is SDXL's refiner; use the base model")


def _of_another(layouts: Mapping[str, SingleFile], tensors: Tensors) -> str:
    found = next((what for mark, what in _OTHERS.items() if any(mark in name for name in tensors)), "of a layout that is not known")
    looked_for = "; ".join(f"{name} has {', '.join(layout.marks)}" for name, layout in layouts.items())
    return (
        f"is {found}. Tensors of one file that are looked for, also behind {', '.join(filter(None, TRANSFORMER))}: {looked_for}. "
        "Of all families folders are taken as diffusers' save_pretrained writes them"
    )


def _without(tensors: Tensors, prefix: str) -> dict[str, Shape]:
    """Those that begin so, without it; where a denoiser has no prefix, those of no other part."""
    if not prefix:
        return {name: shape for name, shape in tensors.items() if not name.startswith(_BESIDE)}
    return {name.removeprefix(prefix): shape for name, shape in tensors.items() if name.startswith(prefix)}


def _begins(tensors: Tensors, start: str) -> bool:
    return any(name.startswith(start) for name in tensors)
