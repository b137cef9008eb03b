"""Chroma (lodestones 2025): FLUX.1 schnell with guidance's distillation undone, T5 alone as its text, and modulations computed by one
small network."""

from collections.abc import Iterator, Mapping

from lorafleet import objectives
from lorafleet.catalog import bfl, parts, presets
from lorafleet.catalog.families.flux import PATCH, RESOLUTION, TARGETS, unpacked_problems
from lorafleet.catalog.family import Configs, Family
from lorafleet.catalog.part import Config
from lorafleet.catalog.single_file import T5, TRANSFORMER, VAE, SingleFile, Tensors, number_of, side

MOST_TOKENS = 512  # max_sequence_length of diffusers' ChromaPipeline
_TRANSFORMER = {"in_channels": 64, "joint_attention_dim": 4096}


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer = configs.get("transformer")
    if transformer is None:
        return
    said = {**_TRANSFORMER, **transformer}
    yield from (("transformer", problem) for problem in parts.packed_misfits(said, configs.get("vae"), PATCH))
    if (t5 := configs.get("text_encoder")) is not None and said["joint_attention_dim"] != t5.get("d_model", 512):
        yield "transformer", "takes another text than text_encoder gives: joint_attention_dim is not its d_model"


def _read(transformer: Tensors) -> Mapping[str, Config]:
    approximator = {
        "approximator_num_channels": side(transformer, "distilled_guidance_layer.in_proj.weight", 1),
        "approximator_hidden_dim": side(transformer, "distilled_guidance_layer.in_proj.weight", 0),
        "approximator_layers": number_of(transformer, "distilled_guidance_layer.layers"),
    }
    return {"transformer": {**bfl.sizes(transformer), **approximator}}


def _known_modules() -> Iterator[str]:
    """It has no modulation of its own in a block."""
    modulations = ("norm.linear", "norm1.linear", "norm1_context.linear")
    return (module for module in bfl.CHROMA.modules.ours() if not module.endswith(modulations))


FACTS = Family(
    name="chroma",
    title="Chroma",
    pipeline="ChromaPipeline",
    objective=objectives.FLOW,
    told_noise=(0.0, 1.0),
    parts=(
        parts.autoencoder_kl(is_shifted=True),
        parts.large_text_encoder("text_encoder", "T5EncoderModel", most_tokens=MOST_TOKENS, kohya_prefix="lora_te3"),
        parts.tokenizer("tokenizer", "T5TokenizerFast", "T5Tokenizer"),
        parts.transformer("ChromaTransformer2DModel", TARGETS, problems=unpacked_problems, defaults=_TRANSFORMER),
        parts.flow_scheduler(),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER, "vae": VAE, "text_encoder": T5},
        marks=("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight", "img_in.weight"),
        original=bfl.CHROMA,
        read=_read,
        refusal=bfl.editing,
        lacks_scheduler="how its times are shifted, which published Chromas differ in",
    ),
    presets=presets.presets(
        (*parts.ATTENTION, *presets.ADDED_ATTENTION),
        (*presets.BOTH_FEED_FORWARDS, "proj_mlp", "single_transformer_blocks.*.proj_out"),
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=305,
    recomputed_values_per_pixel=24,
    text_pixels=PATCH**2 * MOST_TOKENS,
    resolution=RESOLUTION,
    latent_channels=16,
    large_text_values=MOST_TOKENS * 4096 + MOST_TOKENS,
    first_layer="x_embedder",
    architecture="chroma",  # kohya's trainer calls it so (library/sai_model_spec.py)
    kohya_version="chroma",
    sizes=parts.sizes_by_patches(PATCH, RESOLUTION),
    misfits=_misfits,
    kohya_modules=bfl.chroma_names,
    known_modules=_known_modules,
)
