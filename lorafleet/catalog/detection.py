"""Tells of which family a base is: its pipeline's class says, and where several families share one, what the configs say. Pure."""

from collections.abc import Iterator

from lorafleet.catalog import FAMILIES, Family
from lorafleet.catalog.family import Configs
from lorafleet.catalog.part import Config

CLASS = "_class_name"  # of the pipeline, in model_index.json
# Pipelines that a base is told to be; another word is its file's own, and is not repeated.
_INPAINTING = (
    "StableDiffusionInpaint",
    "StableDiffusionXLInpaint",
    "StableDiffusion3Inpaint",
    "FluxFill",
    "FluxInpaint",
    "QwenImageInpaint",
)
_EDITING = (
    *("StableDiffusionInstructPix2Pix", "StableDiffusionXLInstructPix2Pix", "StableDiffusionDepth2Img", "StableDiffusionUpscale"),
    *("StableDiffusionLatentUpscale", "StableDiffusionImageVariation", "FluxKontext", "FluxControl", "Flux2KleinKV"),
    *("QwenImageEdit", "QwenImageEditPlus", "QwenImageLayered", "ZImageOmni"),
)
_FEW_STEPS = ("LatentConsistencyModel", "LatentConsistencyModelImg2Img")
_OTHERS = (
    *("StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "StableDiffusionImg2Img", "StableDiffusionXLImg2Img"),
    *(
        "StableDiffusionControlNet",
        "StableDiffusionXLControlNet",
        "StableCascade",
        "PixArtAlpha",
        "PixArtSigma",
        "AuraFlow",
        "Flux",
        "Flux2",
    ),
    *("Flux2Klein", "Chroma", "ZImage", "Sana", "Kandinsky", "QwenImage", "HunyuanDiT", "HunyuanImage", "Lumina2", "HiDreamImage"),
    *("CogView4", "OmniGen", "Wan", "LTX", "HunyuanVideo", "CogVideoX", "Mochi"),
)
_KINDS = {
    **dict.fromkeys(_OTHERS, ""),
    **dict.fromkeys(_INPAINTING, ", for inpainting; use the base that it was made from"),
    **dict.fromkeys(_EDITING, ", which works on pictures that it is given; use a base that draws from text alone"),
    **dict.fromkeys(_FEW_STEPS, ", distilled to draw in a few steps; use the base that it was made from"),
}


def of_pipeline(index: Config) -> tuple[Family, ...]:
    """The families that this model_index.json may be of; none: `told_pipeline` says what it is."""
    return tuple(family for family in FAMILIES.all() if index.get(CLASS) == family.pipeline)


def chosen(families: tuple[Family, ...], configs: Configs, given: str | None = None) -> Family:
    """Of families that share a pipeline the one that the configs are of. Where the denoiser's cannot be read, the one that was given."""
    known = [family for family in families if family.is_it(configs)]
    if families[0].denoiser.name not in configs:
        known = [family for family in families if family.name == given] + known
    return (known or list(families))[0]


def unknown(index: Config) -> str:
    """What a base of no family is, as the end of a sentence, and what there is instead."""
    there = ", ".join(f"{family.name} ({family.pipeline})" for family in FAMILIES.all())
    return f"{told_pipeline(index)}; there is {there}"


def another(index: Config, found: Family, given: Family) -> str:
    """What a base of another family than the given one is, as the end of a sentence, and what to do."""
    told = told_pipeline(index)
    if found.pipeline == given.pipeline:
        return f"{told} whose configs are {found.name}'s ({found.title}), not {given.name}'s; write {found.name}, or leave it out"
    return f"{told}: family {found.name}, but family {given.name} is a {given.pipeline}; write {found.name}, or leave it out"


def told_pipeline(index: Config) -> str:
    """`a FluxPipeline`, as far as the file's word may be repeated."""
    found = index.get(CLASS)
    if not isinstance(found, str) or found not in _words():
        return "of a kind that is not known"
    return f"a {found}{_KINDS.get(found.removesuffix('Pipeline'), '')}"


def _words() -> frozenset[str]:
    return frozenset({*(f"{name}Pipeline" for name in _KINDS), *_pipelines()})


def _pipelines() -> Iterator[str]:
    return (family.pipeline for family in FAMILIES.all())
