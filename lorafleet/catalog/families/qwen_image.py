"""Qwen-Image (Qwen team 2025): a transformer of text and picture of 20 B parameters, text read by Qwen2.5-VL, an autoencoder of films."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from lorafleet import objectives
from lorafleet.catalog import parts, presets
from lorafleet.catalog.family import Configs, Family
from lorafleet.catalog.original import Original, Table
from lorafleet.catalog.part import Config, Part, PartKind, Problems
from lorafleet.catalog.parts import Sizes
from lorafleet.catalog.single_file import TRANSFORMER, SingleFile, Tensors, number_of, side

MAX_TOKENS = 512  # of a prompt, as diffusers' QwenImagePipeline.__call__ draws it: max_sequence_length
PATCH = 2  # squares of 2 x 2 latents are packed into one token, outside of the transformer
RESOLUTION = 1024  # pixels; its configs do not say, and diffusers' pipeline draws 128 latents along a side
LEVELS = "dim_mult"
DEFAULTS = {"in_channels": 64, "out_channels": 16, "joint_attention_dim": 3584}  # of diffusers' QwenImageTransformer2DModel
AUTOENCODER = {"z_dim": 16, LEVELS: [1, 2, 4, 4]}  # of diffusers' AutoencoderKLQwenImage
_OTHER_INPUTS = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope")  # of bases for editing, and for layers


def _autoencoder_problems(config: Config, family: str) -> Problems:
    if config.get("_class_name", "AutoencoderKLQwenImage") != "AutoencoderKLQwenImage":
        yield "is not the config of an AutoencoderKLQwenImage"
    channels, levels = _of_vae(config, "z_dim"), _numbers(_of_vae(config, LEVELS))
    if not parts.is_count(channels) or not 0 < len(levels) <= parts.MAX_LEVELS or not all(map(parts.is_count, levels)):
        yield f"has z_dim or {LEVELS} that are no positive numbers"
        return
    if len(_numbers(config.get("temperal_downsample", [False] * (len(levels) - 1)))) != len(levels) - 1:
        yield f"has a temperal_downsample that is not one shorter than its {LEVELS}"
    if config.get("input_channels", 3) != 3:
        yield "takes pictures of other than three channels, as for layers; use the base that draws pictures"
    for name in ("latents_mean", "latents_std"):
        values = _numbers(config.get(name))
        if len(values) != channels or not all(type(value) in (int, float) for value in values) or (name == "latents_std" and 0 in values):
            yield f"has {name} that are not a number for each of its z_dim channels"


def _problems(config: Config, family: str) -> Problems:
    if wrong := [name for name in DEFAULTS if not parts.is_count(_says(config, name))]:
        yield f"has {', '.join(wrong)} that is not a positive number"
    if other := [name for name in _OTHER_INPUTS if config.get(name)]:
        yield f"has {', '.join(other)}: it takes other pictures or layers too; use the base that draws from text"
    if config.get("guidance_embeds"):
        yield f"has guidance_embeds: it was distilled to be told its guidance, which {family} is not"
    if config.get("patch_size", PATCH) != PATCH:
        yield f"has a patch_size that is not {PATCH}"


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer, vae, text = configs.get("transformer"), configs.get("vae"), configs.get("text_encoder")
    if transformer is None:
        return
    if vae is not None and _says(transformer, "in_channels") != PATCH * PATCH * _of_vae(vae, "z_dim"):
        yield "transformer", f"takes other latents than the autoencoder gives: in_channels is not {PATCH * PATCH} times its z_dim"
    if _says(transformer, "in_channels") != PATCH * PATCH * _says(transformer, "out_channels"):
        yield "transformer", "takes other channels than it gives; use the base that it was made from"
    if text is not None and _says(transformer, "joint_attention_dim") != _text_width(text):
        yield "transformer", "takes another text than the text encoder gives: joint_attention_dim is not its hidden_size"


def _sizes(denoiser: Config, autoencoder: Config) -> Sizes:
    pixels = 2 ** (len(_of_vae(autoencoder, LEVELS)) - 1)
    return Sizes(pixels_per_latent=pixels, step=pixels * PATCH, resolution=RESOLUTION)


def _text_width(text_encoder: Config) -> object:
    """Of the part that reads: in the config of all of it, or in one of its own."""
    inner = text_encoder.get("text_config")
    return (cast(dict[str, Any], inner) if isinstance(inner, dict) else text_encoder).get("hidden_size")


def _says(transformer: Config, name: str) -> Any:
    return transformer.get(name, DEFAULTS[name])


def _of_vae(vae: Config, name: str) -> Any:
    return vae.get(name, AUTOENCODER[name])


def _numbers(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


_BLOCK = (
    *(f"attn.{name}" for name in (*parts.ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *(f"attn.{name}" for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")),
    *(f"{stream}_{name}" for stream in ("img", "txt") for name in ("mod.1", "mlp.net.0.proj", "mlp.net.2")),
)
_AROUND = (
    *("img_in", "txt_in", "txt_norm", "norm_out.linear", "proj_out"),
    *(f"time_text_embed.timestep_embedder.linear_{number}" for number in (1, 2)),
)
# It was published with diffusers' names (QwenLM/Qwen-Image; diffusers' SINGLE_FILE_LOADABLE_CLASSES converts nothing of it).
ORIGINAL = Original(
    modules=Table({name: name for name in _AROUND}, {"transformer_blocks": ("transformer_blocks", {name: name for name in _BLOCK})}),
    first="img_in",
)


def _read(transformer: Tensors) -> Mapping[str, Config]:
    wide, head = side(transformer, "img_in.weight", 0), side(transformer, "transformer_blocks.0.attn.norm_q.weight", 0)
    config = {
        "in_channels": side(transformer, "img_in.weight", 1),
        "out_channels": side(transformer, "proj_out.weight", 0) // (PATCH * PATCH),
        "num_layers": number_of(transformer, "transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": wide // head if head else 0,
        "joint_attention_dim": side(transformer, "txt_in.weight", 1),
    }
    return {"transformer": config}


def _refusal(transformer: Tensors) -> str | None:
    """Qwen-Image-Edit 2511 is marked by a key without meaning to the model, Layered has an embedding of its own."""
    if "__index_timestep_zero__" in transformer:
        return "is Qwen-Image-Edit: it works on pictures that it is given; use the base that draws from text"
    if any(name.startswith("time_text_embed.addition_t_embedding.") for name in transformer):
        return "is Qwen-Image-Layered: it takes layers; use the base that draws from text"
    return None


FACTS = Family(
    name="qwen_image",
    title="Qwen-Image",
    pipeline="QwenImagePipeline",
    parts=(
        parts.flow_scheduler(),
        Part(
            name="vae",
            kind=PartKind.AUTOENCODER,
            classes=("AutoencoderKLQwenImage",),
            needed=(LEVELS, "latents_mean", "latents_std"),
            problems=_autoencoder_problems,
            levels=LEVELS,
        ),
        parts.large_text_encoder("text_encoder", "Qwen2_5_VLForConditionalGeneration", most_tokens=MAX_TOKENS),
        parts.tokenizer("tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"),
        parts.transformer("QwenImageTransformer2DModel", problems=_problems, defaults=DEFAULTS),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER},
        marks=("transformer_blocks.0.attn.add_q_proj.weight", "transformer_blocks.0.img_mod.1.weight", "txt_norm.weight", "img_in.weight"),
        original=ORIGINAL,
        read=_read,
        refusal=_refusal,
    ),
    presets=presets.presets(
        (*parts.ATTENTION, *presets.ADDED_ATTENTION),
        ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
        ("img_mod.1", "txt_mod.1"),
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=350,
    overflows_fp16=True,
    recomputed_values_per_pixel=22,
    text_pixels=PATCH**2 * MAX_TOKENS,
    latent_channels=16,
    text_values=MAX_TOKENS,
    large_text_values=MAX_TOKENS * 3584,
    first_layer="img_in",
    architecture="qwen-image",
    kohya_version="qwen_image",
    objective=objectives.FLOW,
    told_noise=(0.0, 1.0),
    sizes=_sizes,
    misfits=_misfits,
)
