"""What layers of Krea 2 are called in the code that it was published with (krea-ai/krea-2), and so in ComfyUI and musubi-tuner.

Written from how that code builds its model: 28 `blocks` and a `txtfusion` of two blocks across layers and two along the text, each with an
attention (`wq`, `wk`, `wv`, `wo`, `gate`) and an `mlp` (`gate`, `up`, `down`). All of its 264 linear layers are trained there.
"""

BLOCK = {
    **{f"attn_w{letter}": f"attn.to_{letter}" for letter in "qkv"},
    "attn_wo": "attn.to_out.0",
    "attn_gate": "attn.to_gate",
    **{f"mlp_{name}": f"ff.{name}" for name in ("gate", "up", "down")},
}
BLOCKS = {
    "blocks": ("transformer_blocks", 28),
    "txtfusion_layerwise_blocks": ("text_fusion.layerwise_blocks", 2),
    "txtfusion_refiner_blocks": ("text_fusion.refiner_blocks", 2),
}
AROUND = {
    "first": "img_in",
    "last_linear": "final_layer.linear",
    "tmlp_0": "time_embed.linear_1",
    "tmlp_2": "time_embed.linear_2",
    "tproj_1": "time_mod_proj",
    "txtmlp_1": "txt_in.linear_1",
    "txtmlp_3": "txt_in.linear_2",
    "txtfusion_projector": "text_fusion.projector",
}


def published() -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules."""
    found: dict[str, tuple[str, ...]] = {f"lora_unet_{name}": (module,) for name, module in AROUND.items()}
    for there, (ours, number) in BLOCKS.items():
        for block in range(number):
            found |= {f"lora_unet_{there}_{block}_{name}": (f"{ours}.{block}.{module}",) for name, module in BLOCK.items()}
    return found
