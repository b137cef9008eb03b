"""Z-Image and Z-Image Turbo (Tongyi Lab 2025): text and picture as one sequence of tokens, text read by Qwen3."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from lorafleet import objectives
from lorafleet.catalog import parts, presets
from lorafleet.catalog.family import Configs, Family
from lorafleet.catalog.original import Original, Table
from lorafleet.catalog.part import Config, Names, Problems
from lorafleet.catalog.parts import Sizes
from lorafleet.catalog.single_file import TRANSFORMER, VAE, SingleFile, Tensors, number_of, side

MAX_TOKENS = 512  # diffusers' ZImagePipeline.__call__, max_sequence_length; the template's own among them
PATCH = 2  # its `patch_size`, that the forward pass goes by where nothing is said
RESOLUTION = 1024  # pixels; its configs do not say
TURBO_SHIFT = 3.0  # of the scheduler of Turbo; the base that it was distilled from has another
DEFAULTS = {  # of diffusers' ZImageTransformer2DModel
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 30,
    "n_refiner_layers": 2,
    "n_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1024, 512, 512],
}
_COUNTS = ("in_channels", "dim", "n_layers", "n_refiner_layers", "n_heads", "cap_feat_dim")


def _problems(config: Config, family: str) -> Problems:
    if wrong := [name for name in _COUNTS if not parts.is_count(_says(config, name))]:
        yield f"has {', '.join(wrong)} that is not a positive number"
    for name in ("axes_dims", "axes_lens"):
        if not _are_three(_says(config, name)):
            yield f"has {name} that are not three positive numbers"
    if list(config.get("all_patch_size", [PATCH])) != [PATCH] or list(config.get("all_f_patch_size", [1])) != [1]:
        yield f"has all_patch_size or all_f_patch_size that are not those of {family}, [{PATCH}] and [1]"
    if config.get("siglip_feat_dim") is not None:
        yield "has siglip_feat_dim: this transformer sees other pictures, as for editing; use the base that draws from text"


def _are_three(value: object) -> bool:
    sides = cast(list[object], value) if isinstance(value, list) else []
    return len(sides) == 3 and all(map(parts.is_count, sides))


def _sizes(denoiser: Config, autoencoder: Config) -> Sizes:
    """Places of tokens go as far as the table of each axis, `axes_lens`: of words, of rows, of columns."""
    pixels = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    step = pixels * PATCH
    most = min(_says(denoiser, "axes_lens")[1:]) * step
    return Sizes(pixels_per_latent=pixels, step=step, max_side=most, resolution=min(RESOLUTION, most))


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer, vae, text = configs.get("transformer"), configs.get("vae"), configs.get("text_encoder")
    if transformer is None:
        return
    if vae is not None and _says(transformer, "in_channels") != vae.get("latent_channels", 4):
        yield "transformer", "takes other latents than the autoencoder gives: in_channels is not its latent_channels"
    if text is not None and _says(transformer, "cap_feat_dim") != text.get("hidden_size", 4096):
        yield "transformer", "takes another text than the text encoder gives: cap_feat_dim is not its hidden_size"


def _says(transformer: Config, name: str) -> Any:
    return transformer.get(name, DEFAULTS[name])


def _cautions(configs: Configs) -> Iterator[str]:
    """Turbo has the same transformer as the base: only its scheduler tells them apart."""
    if configs.get("scheduler", {}).get("shift") == TURBO_SHIFT:
        yield (
            "this Z-Image has the scheduler of Turbo, which was distilled to eight steps without guidance: an adapter trained on it loses "
            "some of that; draw with a few steps more, or train on Z-Image"
        )


def original_names(modules: Collection[str]) -> Names:
    """Of each module by diffusers' name the published one (the reverse of diffusers' convert_z_image_transformer_checkpoint_to_diffusers,
    loaders/single_file_utils.py): q, k and v of an attention are one layer there."""
    found: dict[str, str] = {}
    for module in sorted(modules, key=_in_order):
        path = module.replace("all_final_layer.2-1.", "final_layer.").replace("all_x_embedder.2-1", "x_embedder")
        head, _, end = path.rpartition(".attention.")
        if end in ("to_q", "to_k", "to_v", "to_out.0"):
            path = f"{head}.attention.{'out' if end == 'to_out.0' else 'qkv'}"
        found[module] = path
    return found


def _in_order(module: str) -> tuple[str, int]:
    head, _, end = module.rpartition(".")
    return (head, ("to_q", "to_k", "to_v").index(end)) if end in ("to_q", "to_k", "to_v") else (module, 0)


# The tensors of the published code, as `original_names` says, with those that are no layers' of their own.
_INNER = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0")
_NORMS = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")
_BLOCK = {
    **{f"attention.to_{letter}": "attention.qkv" for letter in "qkv"},
    "attention.to_out.0": "attention.out",
    "attention.norm_q": "attention.q_norm",
    "attention.norm_k": "attention.k_norm",
    **{name: name for name in (*_INNER, *_NORMS)},
}
_AROUND = {
    "all_x_embedder.2-1": "x_embedder",
    **{f"all_final_layer.2-1.{name}": f"final_layer.{name}" for name in ("linear", "adaLN_modulation.1")},
    **{name: name for name in ("cap_embedder.0", "cap_embedder.1", "t_embedder.mlp.0", "t_embedder.mlp.2")},
}
ORIGINAL = Original(
    modules=Table(_AROUND, {blocks: (blocks, _BLOCK) for blocks in ("layers", "noise_refiner", "context_refiner")}),
    first="x_embedder",
    alone={token: token for token in ("x_pad_token", "cap_pad_token")},
    left_out=("norm_final.weight",),
)


def _read(transformer: Tensors) -> Mapping[str, Config]:
    wide, head = side(transformer, "x_embedder.weight", 0), side(transformer, "layers.0.attention.q_norm.weight", 0)
    heads = wide // head if head else 0
    config = {
        "in_channels": side(transformer, "x_embedder.weight", 1) // (PATCH * PATCH),
        "dim": wide,
        "n_layers": number_of(transformer, "layers"),
        "n_refiner_layers": number_of(transformer, "noise_refiner"),
        "n_heads": heads,
        "n_kv_heads": heads,
        "cap_feat_dim": side(transformer, "cap_embedder.0.weight", 0),
    }
    return {"transformer": config}


def _refusal(transformer: Tensors) -> str | None:
    if any(name.startswith("siglip_") for name in transformer):
        return "sees other pictures (siglip), as for editing; use the base that draws from text"
    return None


FACTS = Family(
    name="zimage",
    title="Z-Image",
    lays_rows_end_to_end=True,
    pipeline="ZImagePipeline",
    parts=(
        parts.flow_scheduler(),
        parts.autoencoder_kl(is_shifted=True),
        parts.large_text_encoder("text_encoder", "Qwen3Model", most_tokens=MAX_TOKENS),
        parts.tokenizer("tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"),
        parts.transformer("ZImageTransformer2DModel", problems=_problems, defaults=DEFAULTS),
    ),
    single_file=SingleFile(
        denoiser="transformer",
        parts={"transformer": TRANSFORMER, "vae": VAE, "text_encoder": ("text_encoders.qwen3_4b.transformer.model.",)},
        marks=("cap_pad_token", "noise_refiner.0.attention.qkv.weight", "layers.0.attention.qkv.weight", "x_embedder.weight"),
        original=ORIGINAL,
        read=_read,
        refusal=_refusal,
        lacks_scheduler="how its times are shifted, in which Z-Image and Turbo differ with the same tensors",
    ),
    presets=presets.presets(parts.ATTENTION, ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"), ("adaLN_modulation.0",)),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer.
    values_per_pixel=225,
    overflows_fp16=True,
    recomputed_values_per_pixel=16,
    text_pixels=PATCH**2 * MAX_TOKENS,
    resolution=RESOLUTION,
    latent_channels=16,
    text_values=MAX_TOKENS,
    large_text_values=MAX_TOKENS * 2560,
    first_layer="all_x_embedder.2-1",
    architecture="z-image",
    kohya_version="zimage",
    objective=objectives.FLOW,
    told_noise=(1.0, 0.0),  # it is told how much is done
    sizes=_sizes,
    misfits=_misfits,
    cautions=_cautions,
    diffusers_reads_kohya=False,
    kohya_modules=original_names,
)
