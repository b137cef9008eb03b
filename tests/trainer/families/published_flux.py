"""What layers of FLUX.1 are called in the code that it was published with, and so in kohya's and ComfyUI's files; and which are fused.

Written from how that code builds its model: `DoubleStreamBlock` has an attention (`qkv`, `proj`), an MLP (`0`, `2`) and a modulation
(`lin`) for the picture and for the text; `SingleStreamBlock` computes q, k, v and the beginning of its MLP by `linear1`, and its end by
`linear2`. kohya's key is `lora_unet_` and the path with dots as underscores; ComfyUI looks up the same.
"""

from collections.abc import Mapping

DOUBLE: dict[str, tuple[str, ...]] = {  # by the published name our modules, in the order of its outputs
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "txt_mod_lin": ("norm1_context.linear",),
}
SINGLE: dict[str, tuple[str, ...]] = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
AROUND = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in_in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in_out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_in_in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in_out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "vector_in_in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in_out_layer": ("time_text_embed.text_embedder.linear_2",),
    "final_layer_adaLN_modulation_1": ("norm_out.linear",),
    "final_layer_linear": ("proj_out",),
}


def published(num_double: int = 19, num_single: int = 38) -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules."""
    return {**{f"lora_unet_{name}": modules for name, modules in AROUND.items()}, **blocks(num_double, num_single, DOUBLE, SINGLE)}


Blocks = Mapping[str, tuple[str, ...]]


def blocks(num_double: int, num_single: int, double: Blocks, single: Blocks) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for ours, theirs, number, names in (
        ("transformer_blocks", "double_blocks", num_double, double),
        ("single_transformer_blocks", "single_blocks", num_single, single),
    ):
        for block in range(number):
            for name, modules in names.items():
                found[f"lora_unet_{theirs}_{block}_{name}"] = tuple(f"{ours}.{block}.{module}" for module in modules)
    return found
