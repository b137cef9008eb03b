"""What layers of Z-Image are called in the code that it was published with, and so in ComfyUI; which are fused.

Written from how that code builds its model: 30 `layers`, 2 `noise_refiner` and 2 `context_refiner` blocks, each with an attention (`qkv`,
`out`) and a `feed_forward` (`w1`, `w2`, `w3`); all but the context's have a modulation (`adaLN_modulation.0`).
"""

BLOCK = {
    "attention_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention_out": ("attention.to_out.0",),
    "feed_forward_w1": ("feed_forward.w1",),
    "feed_forward_w2": ("feed_forward.w2",),
    "feed_forward_w3": ("feed_forward.w3",),
}
MODULATION = {"adaLN_modulation_0": ("adaLN_modulation.0",)}
AROUND = {
    "x_embedder": ("all_x_embedder.2-1",),
    "final_layer_linear": ("all_final_layer.2-1.linear",),
    "final_layer_adaLN_modulation_1": ("all_final_layer.2-1.adaLN_modulation.1",),
    "cap_embedder_1": ("cap_embedder.1",),
    "t_embedder_mlp_0": ("t_embedder.mlp.0",),
    "t_embedder_mlp_2": ("t_embedder.mlp.2",),
}


def published() -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules."""
    found: dict[str, tuple[str, ...]] = {f"lora_unet_{name}": modules for name, modules in AROUND.items()}
    for kind, number, names in (
        ("layers", 30, {**BLOCK, **MODULATION}),
        ("noise_refiner", 2, {**BLOCK, **MODULATION}),
        ("context_refiner", 2, BLOCK),
    ):
        for block in range(number):
            for name, modules in names.items():
                found[f"lora_unet_{kind}_{block}_{name}"] = tuple(f"{kind}.{block}.{module}" for module in modules)
    return found
