"""FLUX.2 klein, 4B and 9B (Black Forest Labs 2026): three layers of Qwen3 as text, latents normalised by their statistics.

FLUX.2 dev has another pipeline, with Mistral 3 as its text encoder: it is not trained here.
"""

from collections.abc import Iterator, Mapping

from lorafleet import objectives
from lorafleet.catalog import bfl, parts, presets
from lorafleet.catalog.families.flux import unpacked_problems
from lorafleet.catalog.family import MODEL_INDEX, Configs, Family, Label
from lorafleet.catalog.part import Config
from lorafleet.catalog.single_file import TRANSFORMER, SingleFile, Tensors, side

PATCH = 2  # squares of 2 x 2 latents are one, before they come to the transformer
RESOLUTION = 1024  # pixels; its config does not say, diffusers' pipeline draws 128 latents along a side
MOST_TOKENS = 512  # of Qwen3, with those of the chat around the caption (Flux2KleinPipeline.tokenizer_max_length)
TEXT_LAYERS = (9, 18, 27)  # whose states lie side by side (Flux2KleinPipeline.encode_prompt, text_encoder_out_layers)
# Those of diffusers' example for klein but the `to_out` of blocks of one stream: in the others a module of that name is no layer.
TARGETS = (*parts.ATTENTION, "to_qkv_mlp_proj")
WIDTH_OF_4B = 7680  # of the text that it takes: three times 2560
_TRANSFORMER = {"in_channels": 128, "joint_attention_dim": 15360, "guidance_embeds": True}


def _problems(config: Config, family: str) -> Iterator[str]:
    yield from unpacked_problems(config, family)
    if {**_TRANSFORMER, **config}["guidance_embeds"] is not False:
        yield "has guidance_embeds, as FLUX.2 dev: klein is told no strength of guidance"


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer, vae, text = configs.get("transformer"), configs.get("vae"), configs.get("text_encoder")
    if text is not None and text.get("num_hidden_layers", 32) < max(TEXT_LAYERS):
        yield "text_encoder", f"has fewer layers than the {max(TEXT_LAYERS)} that are read"
    if transformer is None:
        return
    said = {**_TRANSFORMER, **transformer}
    channels = None if vae is None else {"latent_channels": 32, **vae}
    yield from (("transformer", problem) for problem in parts.packed_misfits(said, channels, PATCH))
    if text is not None and said["joint_attention_dim"] != len(TEXT_LAYERS) * text.get("hidden_size", 4096):
        yield (
            "transformer",
            f"takes another text than text_encoder gives: joint_attention_dim is not {len(TEXT_LAYERS)} times its hidden_size",
        )


def _label(configs: Configs) -> Label:
    """As musubi-tuner names them (utils/sai_model_spec.py, dataset/architectures.py)."""
    size = "4b" if configs["transformer"].get("joint_attention_dim") == WIDTH_OF_4B else "9b"
    return Label(architecture=f"Flux.2-klein-{size}", kohya_version=f"flux_2_klein_{size}")


def _cautions(configs: Configs) -> Iterator[str]:
    index = configs.get(MODEL_INDEX, {})
    if "is_distilled" in index and index["is_distilled"] is None:
        yield (
            "one file does not say whether this FLUX.2 klein was distilled to four steps: an adapter trained on such a base loses some of "
            "that; train on klein base, and use the adapter on either"
        )
    if index.get("is_distilled") is True:
        yield (
            "this FLUX.2 klein was distilled to four steps, and an adapter trained on it loses some of that; train on klein base, and use "
            "the adapter on either"
        )


def _read(transformer: Tensors) -> Mapping[str, Config]:
    """Of its config, and that the file does not say whether it was distilled."""
    wide, in_mlp = side(transformer, "img_in.weight", 0), side(transformer, "double_blocks.0.img_mlp.2.weight", 1)
    config = {
        **bfl.sizes(transformer),
        "timestep_guidance_channels": side(transformer, "time_in.in_layer.weight", 1),
        "mlp_ratio": in_mlp / wide if wide else 0.0,
    }
    return {"transformer": config, MODEL_INDEX: {"is_distilled": None}}


def _refusal(transformer: Tensors) -> str | None:
    if "guidance_in.in_layer.weight" in transformer:
        return "is told the strength of guidance, as FLUX.2 dev: klein is trained"
    return bfl.editing(transformer)


FACTS = Family(
    name="flux2",
    title="FLUX.2 klein",
    pipeline="Flux2KleinPipeline",
    objective=objectives.FLOW,
    told_noise=(0.0, 1.0),
    parts=(
        parts.autoencoder_kl_flux2(),
        parts.large_text_encoder("text_encoder", "Qwen3ForCausalLM", most_tokens=MOST_TOKENS),
        parts.tokenizer("tokenizer", "Qwen2TokenizerFast", "Qwen2Tokenizer"),
        parts.flow_scheduler(),
        parts.transformer("Flux2Transformer2DModel", TARGETS, problems=_problems, defaults=_TRANSFORMER),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER},
        marks=("double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight", "img_in.weight"),
        original=bfl.FLUX2,
        read=_read,
        refusal=_refusal,
    ),
    # A block of one stream has one layer for q, k, v and its MLP, and one for what both give.
    presets=presets.presets(
        (*parts.ATTENTION, *presets.ADDED_ATTENTION, "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"),
        ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
    ),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer, of klein 9B.
    values_per_pixel=200,
    recomputed_values_per_pixel=16,
    text_pixels=PATCH**2 * MOST_TOKENS,
    resolution=RESOLUTION,
    latent_channels=32,
    large_text_values=MOST_TOKENS * 12288,  # klein 9B
    first_layer="x_embedder",
    architecture="Flux.2-klein-4b",
    kohya_version="flux_2_klein_4b",
    label=_label,
    cautions=_cautions,
    sizes=parts.sizes_by_patches(PATCH, RESOLUTION),
    misfits=_misfits,
    kohya_modules=bfl.flux2_names,
    kohya_swapped=bfl.swapped,
)
