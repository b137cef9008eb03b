"""What the modules of Stable Diffusion 3's transformer are called in the code that it was published with (MMDiT): kohya's files and
ComfyUI name them so. There q, k and v of an attention are one layer. Pure.

The other way round this is diffusers' `convert_sd3_transformer_checkpoint_to_diffusers` (loaders/single_file_utils.py).
"""

import re
from collections.abc import Collection, Iterator, Mapping
from math import isqrt

from lorafleet.catalog.method import Shape
from lorafleet.catalog.original import Original, Table
from lorafleet.catalog.part import Config, Names
from lorafleet.catalog.single_file import number_of, side

# Of the last layers the modulation gives a shift and a scale, in this order; diffusers' gives them the other way round. That of the last
# block's text is such a one, and the others are not.
LAST = "norm_out.linear"
HEAD_WIDTH = 64  # of the published ones; the norms of 3.5 tell it, too
_OUTSIDE = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
# In the order in which the outputs of one layer there lie.
_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_q": "x_block.attn.qkv",
    "attn.to_k": "x_block.attn.qkv",
    "attn.to_v": "x_block.attn.qkv",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.add_q_proj": "context_block.attn.qkv",
    "attn.add_k_proj": "context_block.attn.qkv",
    "attn.add_v_proj": "context_block.attn.qkv",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_q": "x_block.attn2.qkv",
    "attn2.to_k": "x_block.attn2.qkv",
    "attn2.to_v": "x_block.attn2.qkv",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_NORMS = {  # no modules that adapters sit on
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
}
_NUMBERED = re.compile(r"transformer_blocks\.(\d+)\.")


def names(modules: Collection[str]) -> Names:
    """Of each module by diffusers' name the published one; what has none there keeps its own.

    `modules`: all of the transformer that have weights.
    """
    places = {**_OUTSIDE, **dict(_blocks(modules))}
    return {module: places[module] for module in places if module in modules}


def swapped(modules: Collection[str]) -> tuple[str, ...]:
    """The modules whose outputs have their halves the other way round there: of the end, and of the last block's text."""
    numbers = [int(match[1]) for module in modules if (match := _NUMBERED.match(module))]
    return (LAST, *([f"transformer_blocks.{max(numbers)}.norm1_context.linear"] if numbers else []))


def _blocks(modules: Collection[str]) -> Iterator[tuple[str, str]]:
    for number in dict.fromkeys(match[1] for module in modules if (match := _NUMBERED.match(module))):
        yield from ((f"transformer_blocks.{number}.{ours}", f"joint_blocks.{number}.{name}") for ours, name in _BLOCK.items())


MMDIT = Original(
    modules=Table(_OUTSIDE, {"transformer_blocks": ("joint_blocks", {**_BLOCK, **_NORMS})}),
    first="x_embedder.proj",
    alone={"pos_embed": "pos_embed.pos_embed"},
    swapped=swapped,
)


def sizes(tensors: Mapping[str, Shape]) -> Config:
    """What of its config the shapes of its tensors tell, by diffusers' names."""
    first, head = "x_embedder.proj.weight", side(tensors, "joint_blocks.0.x_block.attn.ln_q.weight", 0)
    wide, patch, layers = side(tensors, first, 0), side(tensors, first, 2), number_of(tensors, "joint_blocks")
    return {
        **_heads(wide, head),
        "qk_norm": "rms_norm" if head else None,
        "patch_size": patch,
        "in_channels": side(tensors, first, 1),
        "out_channels": side(tensors, "final_layer.linear.weight", 0) // (patch * patch or 1),
        "num_layers": layers,
        "joint_attention_dim": side(tensors, "context_embedder.weight", 1),
        "caption_projection_dim": side(tensors, "context_embedder.weight", 0),
        "pooled_projection_dim": side(tensors, "y_embedder.mlp.0.weight", 1),
        "pos_embed_max_size": isqrt(side(tensors, "pos_embed", 1)),
        "dual_attention_layers": [each for each in range(layers) if f"joint_blocks.{each}.x_block.attn2.qkv.weight" in tensors],
    }


def _heads(wide: int, head: int) -> Config:
    """Where no norm tells how wide they are, those of the published ones; nothing where that cannot be."""
    if head:
        return {"attention_head_dim": head, "num_attention_heads": wide // head}
    return {} if wide % HEAD_WIDTH else {"attention_head_dim": HEAD_WIDTH, "num_attention_heads": wide // HEAD_WIDTH}
