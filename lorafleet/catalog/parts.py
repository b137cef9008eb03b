"""Parts that several families are built of, with what their configs may say. Only values of the expected type are believed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, cast

from lorafleet import objectives
from lorafleet.catalog.part import Config, Part, PartKind, Problems, no_problems

ProblemsOf = Callable[[Config, str], Problems]

FLOW_NUMBERS = ("shift", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")  # of a flow's scheduler
MAX_TOKENS = 10_000
MAX_LEVELS = 16
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
CLIP_DEFAULTS = {  # transformers' own
    "hidden_size": 512,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "projection_dim": 512,
    "num_hidden_layers": 12,
}
# Those that add noise as training does (sigmas of flow matching are others).
SCHEDULERS = tuple(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete"),
        *("KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "LCM", "TCD"),
    )
)


FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
_FEW_STEPS = "distilled to draw in a few steps, which training would undo; use the base that it was made from"
_MORE_CHANNELS = {5: "as for inpainting", 4: "as for editing (InstructPix2Pix) and upscaling", 1: "as with depth"}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How pictures and latents relate in a base."""

    pixels_per_latent: int  # along a side
    step: int  # pixels; sides must be multiples of it
    max_side: int | None = None  # pixels, of a denoiser that takes no longer sides
    resolution: int | None  # pixels; what the base was trained at, where it says so


def autoencoder_kl(*, is_shifted: bool = False) -> Part:
    """`is_shifted`: its latents have a mean beside their scale, as those of flow transformers."""
    problems = _shifted_autoencoder_problems if is_shifted else _autoencoder_problems
    return Part(name="vae", kind=PartKind.AUTOENCODER, classes=("AutoencoderKL",), needed=("block_out_channels",), problems=problems)


def autoencoder_kl_flux2() -> Part:
    """Its latents are normalised, in squares of 2 x 2, by statistics that lie among its weights."""
    return Part(
        name="vae",
        kind=PartKind.AUTOENCODER,
        classes=("AutoencoderKLFlux2",),
        needed=("block_out_channels",),
        defaults={"latent_channels": 32},
        problems=_normalised_autoencoder_problems,
    )


def clip_text_encoder(name: str, kohya_prefix: str, built: str = "CLIPTextModel") -> Part:
    return Part(
        name=name,
        kind=PartKind.TEXT_ENCODER,
        classes=(built,),
        kohya_prefix=kohya_prefix,
        target_modules=CLIP_ATTENTION,
        defaults=CLIP_DEFAULTS,
        problems=_clip_problems,
    )


def large_text_encoder(name: str, built: str, *, most_tokens: int, kohya_prefix: str = "", is_optional: bool = False) -> Part:
    """A language model that is only read: no reader of adapters loads any on it. `most_tokens` is the family's: it takes more."""
    return Part(
        name=name,
        kind=PartKind.TEXT_ENCODER,
        classes=(built,),
        kohya_prefix=kohya_prefix,
        is_large=True,
        most_tokens=most_tokens,
        problems=_unquantised_problems,
        is_optional=is_optional,
    )


def tokenizer(name: str, *built: str, is_optional: bool = False) -> Part:
    return Part(name=name, kind=PartKind.TOKENIZER, classes=built, problems=_tokenizer_problems, is_optional=is_optional)


def clip_tokenizer(name: str) -> Part:
    return Part(name=name, kind=PartKind.TOKENIZER, classes=("CLIPTokenizer", "CLIPTokenizerFast"), problems=_tokenizer_problems)


def unet() -> Part:
    return Part(
        name="unet",
        kind=PartKind.DENOISER,
        classes=("UNet2DConditionModel",),
        kohya_prefix="lora_unet",
        target_modules=ATTENTION,
        needed=("block_out_channels",),
        defaults={"in_channels": 4, "out_channels": 4, "cross_attention_dim": 1280},
        problems=_unet_problems,
    )


def transformer(built: str, target_modules: tuple[str, ...] = ATTENTION, *, problems: ProblemsOf = no_problems, defaults: Config) -> Part:
    """`defaults`: of its class, of what is asked for here and in `problems`."""
    return Part(
        name="transformer",
        kind=PartKind.DENOISER,
        classes=(built,),
        kohya_prefix="lora_unet",
        target_modules=target_modules,
        defaults=defaults,
        problems=partial(_transformer_problems, built, problems),
    )


def flow_scheduler() -> Part:
    classes = ("FlowMatchEulerDiscreteScheduler",)
    return Part(name="scheduler", kind=PartKind.SCHEDULER, classes=classes, problems=_flow_scheduler_problems)


def noise_scheduler() -> Part:
    return Part(name="scheduler", kind=PartKind.SCHEDULER, classes=SCHEDULERS, problems=_scheduler_problems)


def sizes_by_levels(denoiser: Config, autoencoder: Config) -> Sizes:
    """Both halve their sides from each of their `block_out_channels` to the next; `sample_size` is the denoiser's, in latents."""
    pixels = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    step = pixels * 2 ** (len(denoiser["block_out_channels"]) - 1)
    return Sizes(pixels_per_latent=pixels, step=step, resolution=_resolution(denoiser.get("sample_size"), pixels, step))


def sizes_by_patches(patch: int, resolution: int | None) -> Callable[[Config, Config], Sizes]:
    """Of a transformer that takes squares of `patch` latents as its tokens; one that does not say is trained at `resolution`."""

    def sizes(denoiser: Config, autoencoder: Config) -> Sizes:
        pixels = 2 ** (len(autoencoder["block_out_channels"]) - 1)
        said = denoiser.get("sample_size")
        return Sizes(pixels_per_latent=pixels, step=pixels * patch, resolution=said * pixels if is_count(said) else resolution)

    return sizes


def max_tokens(part: Part, config: Config) -> int:
    """How many tokens a tokenizer gives, or a text encoder takes; one that does not say goes by the others."""
    name = "model_max_length" if part.kind is PartKind.TOKENIZER else "max_position_embeddings"
    length: Any = {**part.defaults, **config}.get(name)  # transformers writes a "very large" one for none
    return part.most_tokens or (length if is_count(length, MAX_TOKENS) else MAX_TOKENS)


def latents_fit(denoiser: Config | None, autoencoder: Config | None) -> bool:
    """Whether the one takes what the other gives, as far as both are known."""
    return denoiser is None or autoencoder is None or denoiser.get("in_channels", 4) == autoencoder.get("latent_channels", 4)


def packed_misfits(transformer: Config, autoencoder: Config | None, patch: int) -> Iterator[str]:
    """What does not fit where squares of `patch` latents become one token's channels before the transformer."""
    packed = patch * patch * (autoencoder or {}).get("latent_channels", 4)
    if autoencoder is not None and transformer["in_channels"] != packed:
        yield f"takes other latents than the autoencoder gives: in_channels is not {patch * patch} times its latent_channels"
    if transformer.get("out_channels") not in (None, transformer["in_channels"]):
        yield "takes other channels than it gives, as for inpainting or editing; use the base that it was made from"


def clip_says(config: Config, name: str) -> int:
    return config.get(name, CLIP_DEFAULTS[name])


def attends_to(denoiser: Config, width: int) -> bool:
    """Whether all its blocks take text of that width."""
    widths = denoiser.get("cross_attention_dim", 1280)
    return all(each == width for each in _list(widths) or [widths])


def is_count(value: object, most: int = 1_000_000) -> bool:
    return type(value) is int and 0 < value <= most


def _resolution(sample_size: int | list[int] | None, factor: int, step: int) -> int | None:
    """A list is (height, width): the square of as many pixels, whose sides must divide."""
    if sample_size is None or isinstance(sample_size, int):
        return None if sample_size is None else sample_size * factor
    return max(1, round(sqrt(sample_size[0] * sample_size[1]) * factor / step)) * step


def _unet_problems(config: Config, family: str) -> Problems:
    yield from _of_class(config, "UNet2DConditionModel")
    yield from _levels(config)
    size = config.get("sample_size")
    sides = _list(size) or []
    if size is not None and not is_count(size) and not (len(sides) == 2 and all(map(is_count, sides))):
        yield "has a sample_size that is neither a number nor (height, width)"
    for name in ("class_embed_type", "num_class_embeds"):
        if config.get(name) is not None:
            yield f"has {name}: this UNet takes an input that {family} does not give; it is of another family"
    if config.get("time_cond_proj_dim") is not None:
        yield f"has time_cond_proj_dim: it is an LCM, {_FEW_STEPS}"
    given, taken = config.get("out_channels", 4), config.get("in_channels", 4)
    if given != taken:
        purpose = _MORE_CHANNELS.get(taken - given, "as for inpainting") if is_count(given) and is_count(taken) else "as for inpainting"
        yield f"takes other channels than it gives, {purpose}; use the base that it was made from"
    yield from _unquantised(config)


def _autoencoder_problems(config: Config, family: str) -> Problems:
    yield from _of_class(config, "AutoencoderKL")
    yield from _levels(config)
    scaling = config.get("scaling_factor", 0.18215)
    if type(scaling) not in (int, float) or not 0 < scaling < 1e6:
        yield "has a scaling_factor that is not a positive number"
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(name) is not None:
            yield f"has {name}: its latents are not only scaled, as those of {family} are; it is of another family"
    yield from _unquantised(config)


def _shifted_autoencoder_problems(config: Config, family: str) -> Problems:
    yield from _autoencoder_problems({name: value for name, value in config.items() if name != "shift_factor"}, family)
    shift = config.get("shift_factor")
    if shift is None:
        yield f"has no shift_factor, which the latents of {family} have; it is of another family"
    elif type(shift) not in (int, float) or not abs(shift) < 1e6:
        yield "has a shift_factor that is not a number"


def _normalised_autoencoder_problems(config: Config, family: str) -> Problems:
    yield from _of_class(config, "AutoencoderKLFlux2")
    yield from _levels(config)
    if list(config.get("patch_size", [2, 2])) != [2, 2]:
        yield f"has a patch_size that is not that of {family}, 2 x 2"
    yield from _unquantised(config)


def _transformer_problems(built: str, more: ProblemsOf, config: Config, family: str) -> Problems:
    yield from _of_class(config, built)
    yield from _unquantised(config)
    yield from more(config, family)


def _flow_scheduler_problems(config: Config, family: str) -> Problems:
    """The schedule must be that of rectified flow, of a thousand steps, with a shift that is a number."""
    yield from _of_class(config, "FlowMatchEulerDiscreteScheduler")
    if config.get("num_train_timesteps", 1000) != 1000:
        yield f"has num_train_timesteps that are not 1000, as those of {family} are"
    if config.get("time_shift_type", "exponential") != "exponential":
        yield "has a time_shift_type that is not exponential, the one that training shifts by"
    for name in FLOW_NUMBERS:
        value = config.get(name, 1.0)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            yield f"has {name} that is not a positive number"


def _unquantised_problems(config: Config, family: str) -> Problems:
    yield from _unquantised(config)


def _clip_problems(config: Config, family: str) -> Problems:
    for name, default in CLIP_DEFAULTS.items():
        if not is_count(config.get(name, default)):
            yield f"has {name} that is not a positive number"
    yield from _unquantised(config)


def _scheduler_problems(config: Config, family: str) -> Problems:
    if config.get("_class_name") in FEW_STEP_SCHEDULERS:
        yield f"is an {config['_class_name']}'s: the base was {_FEW_STEPS}"
    elif _is_turbos(config):
        yield f"spaces its times as SD Turbo and SDXL Turbo do (timestep_spacing trailing, epsilon): the base was {_FEW_STEPS}"
    if problem := objectives.problem(config.get(objectives.FIELD, objectives.DEFAULT), family):
        yield problem
    if not is_count(config.get("num_train_timesteps", 1000), 100_000):
        yield "has num_train_timesteps that is not a positive number"


def _is_turbos(config: Config) -> bool:
    """Trailing times are right for v-prediction and zero terminal SNR (Lin et al. 2023); of epsilon Turbo alone was published with them."""
    is_plain = config.get(objectives.FIELD, objectives.DEFAULT) == "epsilon" and not config.get("rescale_betas_zero_snr")
    is_euler = config.get("_class_name") in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
    return is_plain and is_euler and config.get("timestep_spacing") == "trailing"


def _tokenizer_problems(config: Config, family: str) -> Problems:
    length = config.get("model_max_length")
    if length is not None and (type(length) not in (int, float) or length < 1):
        yield "has a model_max_length that is not a positive number"


def _of_class(config: Config, name: str) -> Iterator[str]:
    if config.get("_class_name", name) != name:
        yield f"is not the config of a {name}"


def _levels(config: Config) -> Iterator[str]:
    levels = _list(config.get("block_out_channels")) or []
    if not 0 < len(levels) <= MAX_LEVELS or not all(map(is_count, levels)):
        yield f"has block_out_channels that are no list of 1 to {MAX_LEVELS} numbers"


def _list(value: object) -> list[Any] | None:
    return cast(list[Any], value) if isinstance(value, list) else None


def _unquantised(config: Config) -> Iterator[str]:
    if config.get("quantization_config") is not None:
        yield "is quantised; use the weights that it was made from"
