"""The smallest folder that is an SDXL base to whoever looks at it: configs, headers, zeros. Nothing of it can be loaded."""

import json
from math import prod
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

WIDTHS, POOLED, TIME_WIDTH = (6, 10), 8, 4
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "force_zeros_for_empty_prompt": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "vae/config.json": {"_class_name": "AutoencoderKL", "block_out_channels": [4, 8, 8, 8], "scaling_factor": 0.13025},
    "text_encoder/config.json": {"hidden_size": WIDTHS[0], "max_position_embeddings": 77},
    "text_encoder_2/config.json": {"hidden_size": WIDTHS[1], "max_position_embeddings": 60, "projection_dim": POOLED},
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": [8, 16, 16],
        "sample_size": 128,
        "cross_attention_dim": sum(WIDTHS),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": POOLED + 6 * TIME_WIDTH,
    },
    "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
    "tokenizer/tokenizer_config.json": {"model_max_length": 77},
    "tokenizer_2/tokenizer_config.json": {"model_max_length": 77, "pad_token": "!"},
}
ATTENTION = [f"down_blocks.1.attentions.0.transformer_blocks.0.attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
UNET = {f"{name}.weight": [4, 4] for name in ATTENTION} | {
    "conv_in.weight": [8, 4, 3, 3],
    **{f"down_blocks.{level}.resnets.{number}.conv1.weight": [4, 4, 3, 3] for level in (0, 1) for number in (0, 1)},
    "down_blocks.0.downsamplers.0.conv.weight": [4, 4, 3, 3],
}
TEXT = {f"text_model.encoder.layers.0.self_attn.{name}.weight": [4, 4] for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
WEIGHTS = {
    "vae/diffusion_pytorch_model.safetensors": {"encoder.conv_in.weight": [4, 3, 3, 3]},
    "unet/diffusion_pytorch_model.safetensors": UNET,
    "text_encoder/model.safetensors": TEXT,
    "text_encoder_2/model.safetensors": TEXT,
}


def write_sdxl(folder: Path) -> Path:
    import numpy as np

    texts = {"model_index.json": INDEX, **CONFIGS, "tokenizer/tokenizer.json": {}, "tokenizer_2/tokenizer.json": {"second": 1}}
    for path, fields in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(fields))
    for path, shapes in WEIGHTS.items():
        save_file({name: np.zeros(shape, dtype=np.float16) for name, shape in shapes.items()}, folder / path)
    return folder


def num_params(path: str) -> int:
    return sum(map(prod, WEIGHTS[path].values()))
