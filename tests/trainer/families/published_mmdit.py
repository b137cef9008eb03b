"""What layers of Stable Diffusion 3 are called in the code that it was published with, and so in kohya's and ComfyUI's files.

Written from how that code (MMDiT) builds its model: a joint block has a `context_block` and an `x_block`, each with an attention (`qkv`,
`proj`), an MLP (`fc1`, `fc2`) and a modulation; 3.5 medium's first `x_block`s have a second attention. The last `context_block` gives
nothing on: it has neither `proj` nor an MLP. kohya's key is `lora_unet_` and the path with dots as underscores; ComfyUI looks up the same.
"""

X = {
    "attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attn_proj": ("attn.to_out.0",),
    "mlp_fc1": ("ff.net.0.proj",),
    "mlp_fc2": ("ff.net.2",),
    "adaLN_modulation_1": ("norm1.linear",),
}
SECOND = {"attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "attn2_proj": ("attn2.to_out.0",)}
CONTEXT = {
    "attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attn_proj": ("attn.to_add_out",),
    "mlp_fc1": ("ff_context.net.0.proj",),
    "mlp_fc2": ("ff_context.net.2",),
    "adaLN_modulation_1": ("norm1_context.linear",),
}
LAST_CONTEXT = ("attn_qkv", "adaLN_modulation_1")
AROUND = {
    "context_embedder": ("context_embedder",),
    "t_embedder_mlp_0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder_mlp_2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder_mlp_0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder_mlp_2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer_adaLN_modulation_1": ("norm_out.linear",),
    "final_layer_linear": ("proj_out",),
}


def published(num_blocks: int = 38, num_second: int = 0) -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules."""
    found: dict[str, tuple[str, ...]] = {f"lora_unet_{name}": modules for name, modules in AROUND.items()}
    for block in range(num_blocks):
        is_last = block == num_blocks - 1
        context = {name: modules for name, modules in CONTEXT.items() if not is_last or name in LAST_CONTEXT}
        for side, names in (("x_block", {**X, **(SECOND if block < num_second else {})}), ("context_block", context)):
            for name, modules in names.items():
                found[f"lora_unet_joint_blocks_{block}_{side}_{name}"] = tuple(f"transformer_blocks.{block}.{each}" for each in modules)
    return found
