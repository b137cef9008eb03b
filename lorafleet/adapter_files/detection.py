"""Tells of which family an adapter is: by what its file says, the names of its modules, and how wide they are. Pure, but for shapes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorafleet.catalog import FAMILIES, file_names
from lorafleet.catalog.family import Family
from lorafleet.catalog.part import Part

FAMILY_KEY = "lorafleet.family"
# How metadata's words for a base begin, in small letters -> its family.
_WORDS = {
    "stable-diffusion-v1": "sd1",
    "stable-diffusion-v2": "sd2",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
    "flux-1": "flux",
    "flux.2": "flux2",
    "chroma": "chroma",
    "z-image": "zimage",
    "qwen-image": "qwen_image",
    "krea": "krea2",
    "sd_v1": "sd1",
    "sd_v2": "sd2",
    "sdxl": "sdxl",
    "flux1": "flux",
    "flux2": "flux2",
    "flux_2": "flux2",
    "zimage": "zimage",
    "qwen_image": "qwen_image",
}
_SAID_IN = (FAMILY_KEY, "modelspec.architecture", "ss_base_model_version")
# How wide the text or the blocks of the published bases are, where names do not tell families apart.
_TEXT_WIDTHS = {"sd1": (768,), "sd2": (1024,), "sdxl": (2048,)}
_WIDTHS = {
    "sd3": (1536, 2432),
    "flux": (3072,),
    "chroma": (3072,),
    "flux2": (3072, 4096, 6144),
    "qwen_image": (3072,),
    "zimage": (3840,),
    "krea2": (6144,),
}
_BLOCKS = {"flux": 19, "chroma": 19, "flux2": 8, "sd3": 38, "qwen_image": 60}


@dataclass(frozen=True)
class Found:
    """What a file's module is of. `inputs`: how many it has; 0: not known."""

    place: str
    module: str
    inputs: int


@dataclass(frozen=True)
class Fit:
    """A family that has all of a file's modules. `modules`: ours, part and path, by place and name in the file."""

    family: str
    num_layers: int
    modules: Mapping[tuple[str, str], tuple[str, ...]]


def fits(format: str, found: Collection[Found], families: Sequence[str]) -> list[Fit]:
    """Of these families those that have all modules."""
    return [fit for name in families if (fit := _fit(format, found, FAMILIES.get(name))) is not None]


def unknown(format: str, found: Collection[Found]) -> str:
    """The first module of the file that hinders the family that has most of them."""
    least: list[Found] = list(found)
    for name in FAMILIES.names():
        for num_layers in _layers(FAMILIES.get(name), found):
            odd = [each for each in found if not _ours(format, each, FAMILIES.get(name), num_layers)]
            least = odd if len(odd) < len(least) else least
    return least[0].module


def likeliest(fitting: Sequence[Fit], found: Collection[Found], metadata: Mapping[str, str]) -> list[Fit]:
    """Those of the families that the file is of as far as can be told: the one that it says, or that its sizes say; else all."""
    said = told(metadata)
    if chosen := [fit for fit in fitting if fit.family == said]:
        return chosen
    return [fit for fit in fitting if _is_published(fit, found)] or list(fitting)


def told(metadata: Mapping[str, str]) -> str | None:
    """The family that metadata name."""
    for key in _SAID_IN:
        said = metadata.get(key, "").lower()
        if key == FAMILY_KEY and said in FAMILIES.names():
            return said
        for start in sorted(_WORDS, key=len, reverse=True):
            if said.startswith(start):
                return _WORDS[start]
    return None


def _fit(format: str, found: Collection[Found], family: Family) -> Fit | None:
    for num_layers in _layers(family, found):
        named = {(each.place, each.module): _ours(format, each, family, num_layers) for each in found}
        if all(named.values()):
            return Fit(family.name, num_layers, {key: ours for key, ours in named.items() if ours})
    return None


def _layers(family: Family, found: Collection[Found]) -> tuple[int, ...]:
    """Numbers of layers in the levels of a UNet to look names up by, the likeliest first."""
    if family.denoiser.name != file_names.UNET:
        return (file_names.LAYERS,)
    modules = {each.module for each in found}
    numbers = {(side, int(rest.split(".")[0])) for module in modules for side, rest in _numbered(module)}
    is_small = ("down", 0) in numbers and ("up", 1) in numbers and not numbers & {("down", 1), ("up", 2)}
    return (1, 2, 3) if is_small else (2, 1, 3)


def _numbered(module: str) -> Iterator[tuple[str, str]]:
    """(side, what begins with the number in its block) of a layer by diffusers' name."""
    for side in ("down", "up"):
        for kind in (".attentions.", ".resnets."):
            if module.startswith(f"{side}_blocks.") and kind in module:
                yield side, module.partition(kind)[2]


def _ours(format: str, each: Found, family: Family, num_layers: int) -> tuple[str, ...]:
    """Our modules; none: this family has no such."""
    part = _part(format, each, family)
    if part is None:
        return ()
    if part.name != family.denoiser.name:
        return tuple(f"{part.name}.{path}" for path in _of_text(format, each.module, part))
    names = file_names.of(family.name, num_layers, file_names.ANYWHERE)
    if names is None:
        return ()
    if format == "kohya":
        inner = names.from_kohya.get(each.module, ()) or _without_attention(family, num_layers, each.module, is_kohya=True)
    elif format == "comfyui":
        inner = names.from_original.get(each.module, ()) or _without_attention(family, num_layers, each.module, is_kohya=False)
    else:
        inner = (each.module,) if each.module in names.modules else ()
    return tuple(f"{part.name}.{path}" for path in inner)


def _without_attention(family: Family, num_layers: int, module: str, *, is_kohya: bool) -> tuple[str, ...]:
    """Of what comes last in a block of a UNet that has no attention, and is numbered so."""
    if family.denoiser.name != file_names.UNET:
        return ()
    names = file_names.plain_unet(family.name, num_layers)
    return (names.from_kohya if is_kohya else names.from_original).get(module, ())


def _part(format: str, each: Found, family: Family) -> Part | None:
    if format == "kohya":
        prefix = {"lycoris": family.denoiser.kohya_prefix}.get(each.place, each.place)
        alike = {prefix, "lora_te1" if prefix == "lora_te" else prefix, "lora_te" if prefix == "lora_te1" else prefix}
        return next((part for part in family.parts if part.kohya_prefix and part.kohya_prefix in alike), None)
    if format == "comfyui":
        if each.place == "diffusion_model":
            return family.denoiser
        return next((part for part in family.text_encoders if file_names.comfy_encoder(family, part) == each.place), None)
    if each.place:
        return next((part for part in (family.denoiser, *family.text_encoders) if part.name == each.place), None)
    return _part_of_path(each.module, family)


def _part_of_path(module: str, family: Family) -> Part | None:
    """PEFT does not say: a text encoder's layers are no denoiser's."""
    is_text = module.startswith(("text_model.", "encoder.layers."))
    return family.text_encoders[0] if is_text and family.text_encoders else None if is_text else family.denoiser


def _of_text(format: str, module: str, part: Part) -> tuple[str, ...]:
    known = file_names.text_modules(part)
    if format == "kohya":
        return (known[module],) if module in known else ()
    path = file_names.our_text(part, module)
    return (path,) if path in known.values() else ()


def _is_published(fit: Fit, found: Collection[Found]) -> bool:
    """Whether the file's modules are as wide and as many as those of a published base of the family."""
    facts, ours = FAMILIES.get(fit.family), {path for paths in fit.modules.values() for path in paths}
    denoiser = f"{facts.denoiser.name}."
    wide = {paths[0].removeprefix(denoiser): each.inputs for each in found if (paths := fit.modules[each.place, each.module])}
    if facts.denoiser.name == file_names.UNET:
        strict = file_names.of(fit.family)
        inside = {path.removeprefix(denoiser) for path in ours if path.startswith(denoiser)}
        return strict is not None and inside <= strict.modules and _sees_its_text(fit.family, wide)
    widths = {inputs for path, inputs in wide.items() if path.endswith(("attn.to_q", "attention.to_q"))}
    return (not widths or widths <= set(_WIDTHS.get(fit.family, ()))) and _most_block(wide) < _BLOCKS.get(fit.family, 1000)


def _sees_its_text(family: str, wide: Mapping[str, int]) -> bool:
    text = {inputs for path, inputs in wide.items() if path.endswith(("attn2.to_k", "attn2.to_v"))}
    return not text or text <= set(_TEXT_WIDTHS.get(family, ()))


def _most_block(wide: Collection[str]) -> int:
    numbers = [path.split(".")[1] for path in wide if path.startswith("transformer_blocks.")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)
