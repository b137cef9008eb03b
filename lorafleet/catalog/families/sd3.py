"""Stable Diffusion 3, and 3.5 medium and large (Esser et al. 2024): three text encoders, of which T5 may be left out."""

from collections.abc import Iterator

from lorafleet import objectives
from lorafleet.catalog import mmdit, parts, presets
from lorafleet.catalog.family import Configs, Family, Label
from lorafleet.catalog.part import Config, Problems
from lorafleet.catalog.parts import Sizes
from lorafleet.catalog.single_file import CLIP_G, CLIP_L, T5, TRANSFORMER, VAE, SingleFile

PATCH, CLIP_TOKENS = 2, 77  # of the published bases
T5_TOKENS = 256  # diffusers' StableDiffusion3Pipeline.__call__, max_sequence_length
TARGETS = (*parts.ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
DEFAULTS = {  # of diffusers' SD3Transformer2DModel
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 96,
}
LARGE_LAYERS = 38  # of 3.5 large; the others have 24


def _problems(config: Config, family: str) -> Problems:
    if wrong := [name for name in DEFAULTS if not parts.is_count(_says(config, name))]:
        yield f"has {', '.join(wrong)} that is not a positive number"
        return
    if _says(config, "out_channels") != _says(config, "in_channels"):
        yield "takes other channels than it gives, as for inpainting; use the base that it was made from"
    if _says(config, "caption_projection_dim") != _says(config, "attention_head_dim") * _says(config, "num_attention_heads"):
        yield "has a caption_projection_dim that is not the width of its layers, attention_head_dim * num_attention_heads"
    if config.get("qk_norm") not in (None, "rms_norm"):
        yield f'has a qk_norm that is not known; {family} has none or "rms_norm"'


def _sizes(denoiser: Config, autoencoder: Config) -> Sizes:
    """Places of patches are cut from a table of `pos_embed_max_size` along a side (diffusers' PatchEmbed.cropped_pos_embed)."""
    pixels = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    step = pixels * _says(denoiser, "patch_size")
    resolution = _says(denoiser, "sample_size") * pixels
    return Sizes(pixels_per_latent=pixels, step=step, max_side=_says(denoiser, "pos_embed_max_size") * step, resolution=resolution)


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer, t5 = configs.get("transformer"), configs.get("text_encoder_3")
    if transformer is None:
        return
    vae = configs.get("vae")
    if vae is not None and _says(transformer, "in_channels") != vae.get("latent_channels", 4):
        yield "transformer", "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    width, pooled = _says(transformer, "joint_attention_dim"), _says(transformer, "pooled_projection_dim")
    if t5 is not None and t5.get("d_model", 512) != width:
        yield "transformer", "takes another text than T5 gives: joint_attention_dim is not text_encoder_3's d_model"
    clips = [clip for name in ("text_encoder", "text_encoder_2") if (clip := configs.get(name)) is not None]
    if len(clips) == 2 and pooled != sum(parts.clip_says(clip, "projection_dim") for clip in clips):
        yield "transformer", "takes another text than CLIP gives: pooled_projection_dim is not the sum of its encoders' projection_dim"
    if len(clips) == 2 and width < sum(parts.clip_says(clip, "hidden_size") for clip in clips):
        yield "transformer", "takes narrower text than CLIP gives: joint_attention_dim is less than the sum of its encoders' hidden_size"


def _says(transformer: Config, name: str) -> int:
    return transformer.get(name, DEFAULTS[name])


def _label(configs: Configs) -> Label:
    """Kohya's trainer writes the version behind the name, as `stable-diffusion-3` and `-5-large` (library/sai_model_spec.py)."""
    transformer = configs["transformer"]
    if _says(transformer, "num_layers") == LARGE_LAYERS:
        return Label(architecture="stable-diffusion-3-5-large", kohya_version="5-large")
    if transformer.get("dual_attention_layers"):
        return Label(architecture="stable-diffusion-3-5-medium", kohya_version="5-medium")
    return Label(architecture="stable-diffusion-3-medium", kohya_version="m")


FACTS = Family(
    name="sd3",
    title="Stable Diffusion 3 and 3.5",
    pipeline="StableDiffusion3Pipeline",
    parts=(
        parts.transformer("SD3Transformer2DModel", TARGETS, problems=_problems, defaults=DEFAULTS),
        parts.flow_scheduler(),
        parts.autoencoder_kl(is_shifted=True),
        parts.clip_text_encoder("text_encoder", "lora_te1", "CLIPTextModelWithProjection"),
        parts.clip_tokenizer("tokenizer"),
        parts.clip_text_encoder("text_encoder_2", "lora_te2", "CLIPTextModelWithProjection"),
        parts.clip_tokenizer("tokenizer_2"),
        parts.large_text_encoder("text_encoder_3", "T5EncoderModel", most_tokens=T5_TOKENS, kohya_prefix="lora_te3", is_optional=True),
        parts.tokenizer("tokenizer_3", "T5TokenizerFast", "T5Tokenizer", is_optional=True),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": CLIP_G, "text_encoder_3": T5},
        marks=("joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight", "pos_embed"),
        original=mmdit.MMDIT,
        read=lambda transformer: {"transformer": mmdit.sizes(transformer)},
    ),
    presets=presets.presets(
        (*parts.ATTENTION, *presets.ADDED_ATTENTION), presets.BOTH_FEED_FORWARDS, ("norm1.linear", "norm1_context.linear")
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer, of 3.5 large; 3 and 3.5 medium take less.
    values_per_pixel=230,
    recomputed_values_per_pixel=17,
    text_pixels=PATCH**2 * (CLIP_TOKENS + T5_TOKENS),
    latent_channels=16,
    text_values=CLIP_TOKENS * 2048 + 2048,
    large_text_values=T5_TOKENS * 4096,
    first_layer="pos_embed.proj",
    architecture="stable-diffusion-3-medium",
    kohya_version="m",
    objective=objectives.FLOW,
    label=_label,
    sizes=_sizes,
    misfits=_misfits,
    diffusers_reads_kohya=False,
    kohya_modules=mmdit.names,
    kohya_swapped=mmdit.swapped,
)
