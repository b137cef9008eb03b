"""What the modules of FLUX's transformers are called in the code that they were published with: kohya's and ComfyUI's files name them so,
and checkpoints in one file.

There q, k and v of an attention are one layer, and so is the beginning of a block of one stream: q, k, v and what goes into its MLP.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from lorafleet.catalog.method import Shape
from lorafleet.catalog.original import Original, Table
from lorafleet.catalog.part import Config, Names
from lorafleet.catalog.single_file import number_of, side

_OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
# In the order in which the outputs of one layer there lie.
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_q": "img_attn.qkv",
    "attn.to_k": "img_attn.qkv",
    "attn.to_v": "img_attn.qkv",
    "attn.to_out.0": "img_attn.proj",
    "attn.add_q_proj": "txt_attn.qkv",
    "attn.add_k_proj": "txt_attn.qkv",
    "attn.add_v_proj": "txt_attn.qkv",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.to_q": "linear1",
    "attn.to_k": "linear1",
    "attn.to_v": "linear1",
    "proj_mlp": "linear1",
    "proj_out": "linear2",
}
# Norms are no modules that adapters sit on.
_DOUBLE_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}
_APPROXIMATOR = {"linear_1": "in_layer", "linear_2": "out_layer"}  # Chroma's, which computes all modulations
_FLUX2_OUTSIDE = {
    **{name: _OUTSIDE[name] for name in ("x_embedder", "context_embedder", "norm_out.linear", "proj_out")},
    **{
        f"time_guidance_embed.{name}": _OUTSIDE[f"time_text_embed.{name}"]
        for name in (f"{kind}_embedder.linear_{number}" for kind in ("timestep", "guidance") for number in (1, 2))
    },
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
}
_FLUX2_DOUBLE = {
    **{name: _DOUBLE[name] for name in _DOUBLE if name.startswith("attn.")},
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_FLUX2_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}
_BLOCK = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)")


def flux_names(modules: Collection[str]) -> Names:
    """Of each module of FLUX.1's transformer by diffusers' name the published one; what has none there keeps its own.

    `modules`: all of the transformer that have weights.
    """
    return _named(modules, _OUTSIDE, _DOUBLE, _SINGLE)


def chroma_names(modules: Collection[str]) -> Names:
    """The same of Chroma's: it has no modulation of its own in a block, and no layers around the time but its approximator's."""
    layers = {module: module.rpartition(".") for module in modules if module.startswith("distilled_guidance_layer.layers.")}
    approximator = {module: f"{layer}.{_APPROXIMATOR.get(name, name)}" for module, (layer, _, name) in layers.items()}
    return {**flux_names(modules), **approximator}


def swapped(modules: Collection[str]) -> tuple[str, ...]:
    """The last layer's modulation gives a shift and a scale, in this order; diffusers' gives them the other way round."""
    return ("norm_out.linear",)


def flux2_names(modules: Collection[str]) -> Names:
    """The same of FLUX.2's."""
    return _named(modules, _FLUX2_OUTSIDE, _FLUX2_DOUBLE, _FLUX2_SINGLE)


def _named(modules: Collection[str], outside: Names, double: Names, single: Names) -> Names:
    places = {**outside, **dict(_blocks(modules, double, single))}
    return {module: places[module] for module in places if module in modules}


def _blocks(modules: Collection[str], double: Names, single: Names) -> Iterator[tuple[str, str]]:
    found = dict.fromkeys(match[0] for module in modules if (match := _BLOCK.match(module)))
    for block in found:
        kind, _, number = block.partition(".")
        theirs, names = ("double_blocks", double) if kind == "transformer_blocks" else ("single_blocks", single)
        yield from ((f"{block}.{ours}", f"{theirs}.{number}.{name}") for ours, name in names.items())


def _blocks_of(double: Names, single: Names) -> dict[str, tuple[str, Names]]:
    return {
        "transformer_blocks": ("double_blocks", {**double, **_DOUBLE_NORMS}),
        "single_transformer_blocks": ("single_blocks", {**single, **_SINGLE_NORMS}),
    }


FLUX = Original(modules=Table(_OUTSIDE, _blocks_of(_DOUBLE, _SINGLE)), first="img_in", swapped=swapped)

_CHROMA_OUTSIDE = {
    **{name: _OUTSIDE[name] for name in ("x_embedder", "context_embedder", "proj_out")},
    **{name: name for name in ("distilled_guidance_layer.in_proj", "distilled_guidance_layer.out_proj")},
}
_CHROMA_BLOCKS = {
    "distilled_guidance_layer.layers": ("distilled_guidance_layer.layers", _APPROXIMATOR),
    "distilled_guidance_layer.norms": ("distilled_guidance_layer.norms", {"": ""}),
}
CHROMA = Original(modules=Table(_CHROMA_OUTSIDE, {**_blocks_of(_DOUBLE, _SINGLE), **_CHROMA_BLOCKS}), first="img_in")
FLUX2 = Original(modules=Table(_FLUX2_OUTSIDE, _blocks_of(_FLUX2_DOUBLE, _FLUX2_SINGLE)), first="img_in", swapped=swapped)


def sizes(tensors: Mapping[str, Shape]) -> Config:
    """What of the config of a FLUX the shapes of its tensors tell, by diffusers' names."""
    head, wide = _head(tensors), side(tensors, "img_in.weight", 0)
    return {
        "in_channels": side(tensors, "img_in.weight", 1),
        "num_layers": number_of(tensors, "double_blocks"),
        "num_single_layers": number_of(tensors, "single_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": wide // head if head else 0,
        "joint_attention_dim": side(tensors, "txt_in.weight", 1),
    }


def editing(tensors: Mapping[str, Shape]) -> str | None:
    """Why a transformer that takes other pictures is none to train, as the end of a sentence; None: it takes none."""
    given, taken = side(tensors, "final_layer.linear.weight", 0), side(tensors, "img_in.weight", 1)
    if taken == given:
        return None
    return f"takes {taken} channels and gives {given}, as FLUX.1 Fill, Canny and Depth do: it works on pictures; use what it was made from"


def _head(tensors: Mapping[str, Shape]) -> int:
    norm = "double_blocks.0.img_attn.norm.query_norm"
    return side(tensors, f"{norm}.scale", 0) or side(tensors, f"{norm}.weight", 0)
