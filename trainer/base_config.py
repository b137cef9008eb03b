"""What the configs of a base say about it: sizes, objective, kind; everything that does not fit its family is named at once. Pure.

The rules are those of Stable Diffusion 1 and 2, which have the same classes. Only values of the expected type are believed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from lorafleet import objectives

Config = dict[str, Any]

MAX_TOKENS = 10_000
MAX_LEVELS = 16
_TEXT_DEFAULTS = {"hidden_size": 512, "max_position_embeddings": 77, "vocab_size": 49408}  # transformers' own

# The only classes that are built, and so the only libraries that are imported: (library, classes) by part.
CLASSES = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
}
# Those that add noise as training does (sigmas of flow matching are others).
SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete"),
        *("KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "LCM", "TCD"),
    )
)
# Pipelines that a base is told to be; another word is its file's own, and is not repeated.
OTHER_PIPELINES = frozenset(
    f"{name}Pipeline"
    for name in (
        *("StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "StableDiffusionInpaint", "StableDiffusionXLInpaint"),
        *("StableDiffusionImg2Img", "StableDiffusionXLImg2Img", "StableDiffusionControlNet", "StableDiffusionUpscale"),
        *("LatentConsistencyModel", "StableCascade", "PixArtAlpha", "PixArtSigma", "AuraFlow", "Flux", "Sana", "Kandinsky", "QwenImage"),
    )
)
LIBRARIES = frozenset({"diffusers", "transformers"})
# Parts of a pipeline that training does without; the checker's library is a module of diffusers.
OPTIONAL = {"safety_checker": LIBRARIES | {"stable_diffusion"}, "feature_extractor": LIBRARIES, "image_encoder": LIBRARIES}
_CONDITIONS = ("addition_embed_type", "class_embed_type", "num_class_embeds")  # inputs of a UNet that this family has not


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """What training must know of a base."""

    vae_factor: int  # pixels per latent, along a side
    resolution: int | None  # pixels; what the base was trained at, where it says so
    resolution_step: int  # sides must be multiples of this
    max_tokens: int  # that the text encoder takes
    text_width: int
    scheduler: str  # the class that draws its sample pictures
    prediction_type: str
    zero_terminal_snr: bool


def index_problems(index: Config, family: str) -> Iterator[str]:
    """What model_index.json names that is not this family's. Nothing is imported for a name in a file."""
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list):
            continue  # settings of the pipeline
        if part in CLASSES or part == "scheduler":
            yield from _part_problems(part, value, family)
        elif value != [None, None] and (len(value) != 2 or value[0] not in OPTIONAL.get(part, LIBRARIES)):
            told = repr(part) if part in OPTIONAL else "a part that is not known"
            yield f"names {told} from a library that {family} has not; its parts come from diffusers and transformers"
    for part in (*CLASSES, "scheduler"):
        if not isinstance(index.get(part), list):
            yield f"does not name its {part}"


def _part_problems(part: str, value: list[Any], family: str) -> Iterator[str]:
    if part == "scheduler":
        if len(value) != 2 or value[0] != "diffusers" or value[1] not in SCHEDULERS:
            yield f"has a scheduler that {family} does not work with; use diffusers' DDIMScheduler, PNDMScheduler or the like"
        return
    library, classes = CLASSES[part]
    if len(value) != 2 or value[0] != library or value[1] not in classes:
        yield f"has a {part} of another kind; {family} takes {library}'s {classes[0]}"


def problems(configs: Mapping[str, Config], family: str) -> Iterator[tuple[str, str]]:
    """(file, what is wrong in it), all of it. `configs`: by part; a part whose config could not be read is left out."""
    for part, check in _CHECKS.items():
        if part in configs:
            yield from ((_FILES[part], problem) for problem in check(configs[part], family))
    yield from _misfits(configs, family)


def facts(configs: Mapping[str, Config], index: Config) -> BaseFacts:
    """Of configs without problems."""
    unet, vae, text, scheduler = configs["unet"], configs["vae"], _TEXT_DEFAULTS | configs["text_encoder"], configs["scheduler"]
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    step = factor * 2 ** (len(unet["block_out_channels"]) - 1)
    return BaseFacts(
        vae_factor=factor,
        resolution=_resolution(unet.get("sample_size"), factor, step),
        resolution_step=step,
        max_tokens=min(_tokens_of(configs.get("tokenizer", {})), text["max_position_embeddings"]),
        text_width=text["hidden_size"],
        scheduler=index["scheduler"][1],
        prediction_type=scheduler.get(objectives.FIELD, objectives.DEFAULT),
        zero_terminal_snr=scheduler.get("rescale_betas_zero_snr") is True,
    )


def _resolution(sample_size: int | list[int] | None, factor: int, step: int) -> int | None:
    """A list is (height, width): the square of as many pixels, whose sides must divide."""
    if sample_size is None or isinstance(sample_size, int):
        return None if sample_size is None else sample_size * factor
    return max(1, round(sqrt(sample_size[0] * sample_size[1]) * factor / step)) * step


def _tokens_of(tokenizer: Config) -> int:
    """A tokenizer without a length, or with transformers' "very large", goes by its encoder."""
    length: Any = tokenizer.get("model_max_length", MAX_TOKENS)
    return length if _is_count(length, MAX_TOKENS) else MAX_TOKENS


def _unet(config: Config, family: str) -> Iterator[str]:
    yield from _of_class(config, "UNet2DConditionModel")
    yield from _levels(config)
    size = config.get("sample_size")
    if size is not None and not _is_count(size) and not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        yield "has a sample_size that is neither a number nor (height, width)"
    for name in _CONDITIONS:
        if config.get(name) is not None:
            yield f"has {name}: this UNet takes an input that {family} does not give; it is of another family"
    if config.get("out_channels", 4) != config.get("in_channels", 4):
        yield "takes other channels than it gives, as for inpainting; use the base that it was made from"
    yield from _unquantised(config)


def _vae(config: Config, family: str) -> Iterator[str]:
    yield from _of_class(config, "AutoencoderKL")
    yield from _levels(config)
    scaling = config.get("scaling_factor", 0.18215)
    if type(scaling) not in (int, float) or not 0 < scaling < 1e6:
        yield "has a scaling_factor that is not a positive number"
    yield from _unquantised(config)


def _text_encoder(config: Config, family: str) -> Iterator[str]:
    for name, default in _TEXT_DEFAULTS.items():
        if not _is_count(config.get(name, default)):
            yield f"has {name} that is not a positive number"
    yield from _unquantised(config)


def _scheduler(config: Config, family: str) -> Iterator[str]:
    if problem := objectives.problem(config.get(objectives.FIELD, objectives.DEFAULT), family):
        yield problem
    if not _is_count(config.get("num_train_timesteps", 1000), 100_000):
        yield "has num_train_timesteps that is not a positive number"


def _tokenizer(config: Config, family: str) -> Iterator[str]:
    length = config.get("model_max_length")
    if length is not None and (type(length) not in (int, float) or length < 1):
        yield "has a model_max_length that is not a positive number"


_CHECKS = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder, "scheduler": _scheduler, "tokenizer": _tokenizer}
NEEDED = {"unet": ("block_out_channels",), "vae": ("block_out_channels",)}
_FILES = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": objectives.SCHEDULER_CONFIG,
    "tokenizer": "tokenizer/tokenizer_config.json",
}
CONFIGS = _FILES


def _misfits(configs: Mapping[str, Config], family: str) -> Iterator[tuple[str, str]]:
    unet, vae, text = (configs.get(part) for part in ("unet", "vae", "text_encoder"))
    if unet is not None and vae is not None and unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        yield _FILES["unet"], "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    if unet is not None and text is not None:
        widths = unet.get("cross_attention_dim", 1280)
        if any(
            width != text.get("hidden_size", _TEXT_DEFAULTS["hidden_size"]) for width in (widths if isinstance(widths, list) else [widths])
        ):
            yield _FILES["unet"], "takes another text than the text encoder gives: cross_attention_dim is not its hidden_size"


def _of_class(config: Config, name: str) -> Iterator[str]:
    if config.get("_class_name", name) != name:
        yield f"is not the config of a {name}"


def _levels(config: Config) -> Iterator[str]:
    levels = config.get("block_out_channels")
    if not isinstance(levels, list) or not 0 < len(levels) <= MAX_LEVELS or not all(map(_is_count, levels)):
        yield f"has block_out_channels that are no list of 1 to {MAX_LEVELS} numbers"


def _unquantised(config: Config) -> Iterator[str]:
    if config.get("quantization_config") is not None:
        yield "is quantised; use the weights that it was made from"


def _is_count(value: object, most: int = 1_000_000) -> bool:
    return type(value) is int and 0 < value <= most
