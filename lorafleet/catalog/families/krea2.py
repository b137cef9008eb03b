"""Krea 2 Raw, and Turbo with a caution (Krea AI 2026): one sequence of text and picture, 12 B; twelve layers of Qwen3-VL as text.

Its autoencoder is Qwen-Image's.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, cast

from lorafleet import objectives
from lorafleet.catalog import parts, presets
from lorafleet.catalog.families import qwen_image
from lorafleet.catalog.family import MODEL_INDEX, Configs, Family
from lorafleet.catalog.original import MOST_BLOCKS
from lorafleet.catalog.part import Config, Names, Problems

PATCH = qwen_image.PATCH
MAX_TOKENS = 512  # of a prompt, with the five behind it (diffusers' Krea2Pipeline.__call__, max_sequence_length)
TEXT_LAYERS = (
    2,
    5,
    8,
    11,
    14,
    17,
    20,
    23,
    26,
    29,
    32,
    35,
)  # whose states are read; 0 is what the first layer takes (Krea2Pipeline.__init__)
# The authors' own, of diffusers' example script for it.
TARGETS = (
    *(*parts.ATTENTION, "to_gate", "ff.up", "ff.down", "img_in", "final_layer.linear", "text_fusion.projector"),
    *("txt_in.linear_1", "txt_in.linear_2", "time_embed.linear_1", "time_embed.linear_2", "time_mod_proj"),
)
DEFAULTS = {  # of diffusers' Krea2Transformer2DModel
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 48,
    "text_hidden_dim": 2560,
    "num_text_layers": 12,
}
TEXT = {"num_hidden_layers": 32, "hidden_size": 4096}  # of transformers' Qwen3VLTextConfig
# By diffusers' names the published ones (the reverse of its convert_krea2_transformer_checkpoint_to_diffusers).
_AROUND = {
    "img_in": "first",
    "final_layer.linear": "last.linear",
    "time_embed.linear_1": "tmlp.0",
    "time_embed.linear_2": "tmlp.2",
    "time_mod_proj": "tproj.1",
    "txt_in.linear_1": "txtmlp.1",
    "txt_in.linear_2": "txtmlp.3",
}
_IN_BLOCKS = (
    (r"^transformer_blocks\.", "blocks."),
    (r"^text_fusion\.", "txtfusion."),
    (r"\.attn\.to_([qkv])$", r".attn.w\1"),
    (r"\.attn\.to_out\.0$", ".attn.wo"),
    (r"\.attn\.to_gate$", ".attn.gate"),
    (r"\.ff\.", ".mlp."),
)


def _problems(config: Config, family: str) -> Problems:
    if wrong := [name for name in DEFAULTS if not parts.is_count(_says(config, name))]:
        yield f"has {', '.join(wrong)} that is not a positive number"
    if _says(config, "num_text_layers") != len(TEXT_LAYERS):
        yield f"has num_text_layers that are not those of {family}, {len(TEXT_LAYERS)}"


def _misfits(configs: Configs) -> Iterator[tuple[str, str]]:
    transformer, vae, text = configs.get("transformer"), configs.get("vae"), configs.get("text_encoder")
    num_layers = _of_text(text or {}, "num_hidden_layers")
    if text is not None and not (parts.is_count(num_layers) and num_layers >= max(TEXT_LAYERS)):
        yield "text_encoder", f"has fewer layers than the {max(TEXT_LAYERS)} that are read"
    if transformer is None:
        return
    if vae is not None and _says(transformer, "in_channels") != PATCH * PATCH * vae.get("z_dim", qwen_image.AUTOENCODER["z_dim"]):
        yield "transformer", f"takes other latents than the autoencoder gives: in_channels is not {PATCH * PATCH} times its z_dim"
    if text is not None and _says(transformer, "text_hidden_dim") != _of_text(text, "hidden_size"):
        yield "transformer", "takes another text than the text encoder gives: text_hidden_dim is not its hidden_size"


def _says(transformer: Config, name: str) -> Any:
    return transformer.get(name, DEFAULTS[name])


def _of_text(text_encoder: Config, name: str) -> Any:
    """Of the part that reads: its pictures' part has a config of its own."""
    inner = text_encoder.get("text_config")
    return {**TEXT, **cast(Config, inner if isinstance(inner, dict) else {})}[name]


def _cautions(configs: Configs) -> Iterator[str]:
    if configs.get(MODEL_INDEX, {}).get("is_distilled") is True:
        yield (
            "this Krea 2 is Turbo, which was distilled to eight steps, and an adapter trained on it loses some of that; train on Raw, and "
            "use the adapter on either"
        )


def original_names(modules: Collection[str]) -> Names:
    """Of each module by diffusers' name the published one."""
    return {module: _original(module) for module in modules}


def _original(module: str) -> str:
    for pattern, there in () if module in _AROUND else _IN_BLOCKS:
        module = re.sub(pattern, there, module)
    return _AROUND.get(module, module)


def _known_modules() -> Iterator[str]:
    yield from (*_AROUND, "text_fusion.projector")
    lists = ("transformer_blocks", "text_fusion.layerwise_blocks", "text_fusion.refiner_blocks")
    inner = (*(f"attn.{name}" for name in (*parts.ATTENTION, "to_gate")), "ff.up", "ff.down", "ff.gate")
    yield from (f"{blocks}.{number}.{name}" for blocks in lists for number in range(MOST_BLOCKS) for name in inner)


FACTS = Family(
    name="krea2",
    title="Krea 2",
    pipeline="Krea2Pipeline",
    parts=(
        parts.flow_scheduler(),
        qwen_image.FACTS.autoencoder,
        parts.large_text_encoder("text_encoder", "Qwen3VLModel", most_tokens=MAX_TOKENS),
        parts.tokenizer("tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"),
        parts.transformer("Krea2Transformer2DModel", TARGETS, problems=_problems, defaults=DEFAULTS),
    ),
    presets=presets.presets((*parts.ATTENTION, "to_gate"), ("ff.gate", "ff.up", "ff.down")),
    # python -m tests.trainer.families.real counts them, with LoRA on every layer. Twelve states of each word come to one, in blocks of
    # their own that are not recomputed.
    values_per_pixel=192,
    recomputed_values_per_pixel=15,
    text_pixels=PATCH**2 * MAX_TOKENS * 4 // 3,
    recomputed_text_pixels=PATCH**2 * MAX_TOKENS * 11 // 2,
    latent_channels=16,
    text_values=MAX_TOKENS,
    large_text_values=MAX_TOKENS * 12 * 2560,
    first_layer="img_in",
    architecture="Krea-2",
    kohya_version="krea2",
    objective=objectives.FLOW,
    told_noise=(0.0, 1.0),
    sizes=qwen_image.FACTS.sizes,
    misfits=_misfits,
    cautions=_cautions,
    diffusers_reads_kohya=False,
    kohya_modules=original_names,
    known_modules=_known_modules,
)
