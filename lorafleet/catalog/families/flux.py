"""FLUX.1 dev and schnell (Black Forest Labs 2024): a flow transformer that sees CLIP's pooled text and T5's, and packed latents.

The two differ in what they were distilled to: dev takes the strength of guidance as an input (`guidance_embeds`), schnell draws in
four steps. What either of them is, its transformer's config says.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from lorafleet import objectives
from lorafleet.catalog import bfl, parts, presets
from lorafleet.catalog.family import Configs, Family, Label
from lorafleet.catalog.part import Config
from lorafleet.catalog.single_file import CLIP_L, T5, TRANSFORMER, VAE, SingleFile, Tensors, side

PATCH = 2  # squares of 2 x 2 latents are packed into one token, outside of the transformer
RESOLUTION = 1024  # pixels; its config does not say, diffusers' pipeline draws 128 latents along a side
# The layers that the example script of diffusers trains (train_dreambooth_lora_flux.py).
TARGETS = (
    *parts.ATTENTION,
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
)
# Tokens of T5 (black-forest-labs/flux, src/flux/util.py: load_t5).
DEV_TOKENS, SCHNELL_TOKENS = 512, 256
# As schnell was published: its times are not shifted (black-forest-labs/FLUX.1-schnell, scheduler/scheduler_config.json).
SCHNELL_SCHEDULER = {"shift": 1.0, "use_dynamic_shifting": False}
HEAD_WIDTH = 128  # where the config does not say
_TRANSFORMER = {"in_channels": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": False}


def _is_schnell(configs: Configs) -> bool:
    return configs.get("transformer", {}).get("guidance_embeds") is not True


def unpacked_problems(config: Config, family: str) -> Iterator[str]:
    if config.get("patch_size", 1) != 1:
        yield f"has a patch_size that is not 1: latents of {family} are packed before they come to it"
    axes = config.get("axes_dims_rope")
    if isinstance(axes, list) and sum(filter(parts.is_count, cast(list[Any], axes))) != config.get("attention_head_dim", HEAD_WIDTH):
        yield "has axes_dims_rope whose sum is not its attention_head_dim"


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer = configs.get("transformer")
    if transformer is None:
        return
    said = {**_TRANSFORMER, **transformer}
    yield from (("transformer", problem) for problem in parts.packed_misfits(said, configs.get("vae"), PATCH))
    if (clip := configs.get("text_encoder")) is not None and said["pooled_projection_dim"] != parts.clip_says(clip, "hidden_size"):
        yield "transformer", "takes another pooled text than text_encoder gives: pooled_projection_dim is not its hidden_size"
    if (t5 := configs.get("text_encoder_2")) is not None and said["joint_attention_dim"] != t5.get("d_model", 512):
        yield "transformer", "takes another text than text_encoder_2 gives: joint_attention_dim is not its d_model"


def _label(configs: Configs) -> Label:
    return Label(architecture="flux-1-schnell" if _is_schnell(configs) else FACTS.architecture, kohya_version=FACTS.kohya_version)


def _most_tokens(configs: Configs) -> Mapping[str, int]:
    return {"text_encoder_2": SCHNELL_TOKENS if _is_schnell(configs) else DEV_TOKENS}


def _cautions(configs: Configs) -> Iterator[str]:
    if _is_schnell(configs):
        yield (
            "this FLUX.1 has no guidance_embeds, as schnell: schnell was distilled to four steps, and an adapter trained on it loses some "
            "of that; draw with a few steps more, or train on dev"
        )


def _read(transformer: Tensors) -> Mapping[str, Config]:
    has_guidance = "guidance_in.in_layer.weight" in transformer
    pooled = side(transformer, "vector_in.in_layer.weight", 1)
    config = {**bfl.sizes(transformer), "pooled_projection_dim": pooled, "guidance_embeds": has_guidance}
    return {"transformer": config} if has_guidance else {"transformer": config, "scheduler": SCHNELL_SCHEDULER}


FACTS = Family(
    name="flux",
    title="FLUX.1",
    pipeline="FluxPipeline",
    objective=objectives.FLOW,
    told_noise=(0.0, 1.0),
    parts=(
        parts.autoencoder_kl(is_shifted=True),
        parts.clip_text_encoder("text_encoder", "lora_te1"),
        parts.clip_tokenizer("tokenizer"),
        parts.large_text_encoder("text_encoder_2", "T5EncoderModel", most_tokens=DEV_TOKENS, kohya_prefix="lora_te3"),
        parts.tokenizer("tokenizer_2", "T5TokenizerFast", "T5Tokenizer"),
        parts.transformer("FluxTransformer2DModel", TARGETS, problems=unpacked_problems, defaults=_TRANSFORMER),
        parts.flow_scheduler(),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": T5},
        marks=("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight", "img_in.weight"),
        original=bfl.FLUX,
        read=_read,
        refusal=bfl.editing,
    ),
    presets=presets.presets(
        (*parts.ATTENTION, *presets.ADDED_ATTENTION),
        (*presets.BOTH_FEED_FORWARDS, "proj_mlp", "single_transformer_blocks.*.proj_out"),
        ("norm.linear", "norm1.linear", "norm1_context.linear"),
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=300,
    recomputed_values_per_pixel=22,
    text_pixels=PATCH**2 * DEV_TOKENS,
    resolution=RESOLUTION,
    latent_channels=16,
    text_values=768,
    large_text_values=DEV_TOKENS * 4096,
    first_layer="x_embedder",
    architecture="flux-1-dev",
    kohya_version="flux1",
    label=_label,
    sizes=parts.sizes_by_patches(PATCH, RESOLUTION),
    most_tokens=_most_tokens,
    cautions=_cautions,
    misfits=_misfits,
    kohya_modules=bfl.flux_names,
    kohya_swapped=bfl.swapped,
)
