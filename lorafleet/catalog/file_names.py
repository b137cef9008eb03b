"""What the modules of adapters are called in files, both ways and without a base: kohya's names, those of the code that a model was
published with (ComfyUI's), and ours, which are diffusers'. Pure.

Kohya's names have underscores for dots, so a name alone does not say where they were: it is looked up among all modules that a family's
denoiser may have.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from lorafleet.catalog import FAMILIES
from lorafleet.catalog.family import Family
from lorafleet.catalog.part import Names, Part
from lorafleet.catalog.sgm import MOST_LEVELS, sgm_names, unet_modules

LAYERS = 2  # of each level of the published UNets
UNET, COMFY_DENOISER, COMFY_TEXT = "unet", "diffusion_model.", "text_encoders."
MOST_TEXT_LAYERS = 64
_BLOCKS = frozenset(f"{side}_blocks.{level}" for side in ("down", "up") for level in range(MOST_LEVELS))
# Blocks of the published UNets that have attention.
_ATTENDING = {
    "sdxl": frozenset({"down_blocks.1", "down_blocks.2", "up_blocks.0", "up_blocks.1"}),
    "sd1": _BLOCKS - {"down_blocks.3", "up_blocks.0"},
}
_CLIP = (*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")), "mlp.fc1", "mlp.fc2")
_T5 = (
    *(f"layer.0.SelfAttention.{name}" for name in "qkvo"),
    *(f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wi", "wo")),
)
_COMFY_ENCODERS = {"lora_te": "clip_l", "lora_te1": "clip_l", "lora_te2": "clip_g", "lora_te3": "t5xxl"}
_LEVEL = "text_model."
_ATTENTION = re.compile(r"((?:down|up)_blocks\.\d+)\.attentions\.")

NO_NAMES: Names = {}
ANYWHERE = _BLOCKS  # all that may have attention
Ours = tuple[str, ...]  # modules whose outputs lie one after another in one of a file's


@dataclass(frozen=True, kw_only=True)
class DenoiserNames:
    """Of a denoiser's modules. `modules`: all that it has, as far as it is known; `original`: of each the published name."""

    modules: frozenset[str]
    original: Names
    kohya: Names

    @cached_property
    def from_original(self) -> Mapping[str, Ours]:
        return _inverted(self.original)

    @cached_property
    def from_kohya(self) -> Mapping[str, Ours]:
        """Also by what is not kohya's own way of this family and yet met: flattened diffusers' names, and flattened published ones."""
        alone = {_flat(module): (module,) for module in self.modules}
        published = {_flat(name): ours for name, ours in self.from_original.items()}
        return {**alone, **published, **{_flat(name): ours for name, ours in _inverted(self.kohya).items()}}


@cache
def of(family: str, num_layers: int = LAYERS, attends: frozenset[str] = frozenset()) -> DenoiserNames | None:
    """Of all modules that the family's bases may have; None: it is not known which these are.

    Of UNets: `num_layers` in each level, and `attends`: blocks that are known to have attention, beside those of the published ones.
    """
    facts = FAMILIES.get(family)
    if facts.denoiser.name == UNET:
        return of_modules(facts, frozenset(unet_modules(num_layers, attends=_ATTENDING.get(family, _ATTENDING["sd1"]) | attends)))
    return of_modules(facts, frozenset(known)) if (known := list(_known(facts))) else None


def num_layers_of(modules: Iterable[str]) -> int:
    """Of each level of a denoiser with these modules, where it is a UNet."""
    numbers = {module.split(".")[3] for module in modules if module.startswith("down_blocks.0.resnets.")}
    return len(numbers) or LAYERS


@cache
def plain_unet(family: str, num_layers: int) -> DenoiserNames:
    """Of a UNet that has no attention but in its middle."""
    return of_modules(FAMILIES.get(family), frozenset(unet_modules(num_layers, attends=())))


def of_modules(family: Family, modules: Collection[str]) -> DenoiserNames:
    """Of a base's own modules, all of them."""
    kohya = _whole(family.kohya_modules(modules) if family.kohya_modules else NO_NAMES, modules)
    original = _whole(sgm_names(modules), modules) if family.denoiser.name == UNET else kohya
    return DenoiserNames(modules=frozenset(modules), original=original, kohya=kohya)


def attending(modules: Collection[str]) -> frozenset[str]:
    """The blocks of a UNet that have attention, as far as these modules tell."""
    return frozenset(match[1] for module in modules if (match := _ATTENTION.match(module)))


def text_modules(part: Part) -> Mapping[str, str]:
    """By kohya's name, without the prefix, ours, without the part, of each module of a text encoder that adapters are put on."""
    return _t5_modules() if part.classes[0].startswith("T5") else {_flat(f"{_LEVEL}{path}"): our_text(part, path) for path in _clip_paths()}


def our_text(part: Part, path: str) -> str:
    """A path in a text encoder as today's transformers have it: models of text alone have no level `text_model`, others do."""
    if not any(name.startswith("CLIP") for name in part.classes):
        return path
    inner = path.removeprefix(_LEVEL)
    return inner if part.classes[0] == "CLIPTextModel" or inner == "text_projection" else f"{_LEVEL}{inner}"


def text_in_files(part: Part, path: str) -> str:
    """The same as files have it, which are older than that."""
    is_clip = any(name.startswith("CLIP") for name in part.classes)
    return path if not is_clip or path.startswith((_LEVEL, "text_projection")) else f"{_LEVEL}{path}"


def comfy_encoder(family: Family, part: Part) -> str:
    """What ComfyUI calls a text encoder, where adapters of this family are known on it."""
    return "clip_h" if family.name == "sd2" else _COMFY_ENCODERS.get(part.kohya_prefix, "")


def _known(family: Family) -> Iterator[str]:
    if family.known_modules is not None:
        yield from family.known_modules()
    elif family.single_file is not None and family.single_file.original is not None:
        yield from family.single_file.original.modules.ours()


def _clip_paths() -> Iterator[str]:
    yield from (f"encoder.layers.{number}.{name}" for number in range(MOST_TEXT_LAYERS) for name in _CLIP)


@cache
def _t5_modules() -> Mapping[str, str]:
    paths = (f"encoder.block.{number}.{name}" for number in range(MOST_TEXT_LAYERS) for name in _T5)
    return {_flat(path): path for path in paths}


def _whole(named: Names, modules: Collection[str]) -> Names:
    """With all of them: what has no other name keeps its own."""
    return {**named, **{module: module for module in modules if module not in named}}


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _inverted(names: Names) -> dict[str, Ours]:
    found: dict[str, Ours] = {}
    for ours, theirs in names.items():
        found[theirs] = (*found.get(theirs, ()), ours)
    return found
