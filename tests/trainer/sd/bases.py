"""Bases of Stable Diffusion's first families, made of the demo's: with another scheduler, or with the text of 2.x."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from examples.demo import BASE_MODEL

SD2_WIDTH = 1024


def copy(folder: Path, **scheduler: Any) -> Path:
    """The demo's base, with these fields in its scheduler's config."""
    shutil.copytree(BASE_MODEL, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **scheduler}))
    return folder


def write_sd2(folder: Path, **scheduler: Any) -> Path:
    """A tiny base whose UNet takes text as wide as 2.x's, with linear projections as there."""
    copy(folder, **scheduler)
    torch.manual_seed(2)
    config = {name: value for name, value in json.loads((folder / "unet/config.json").read_text()).items() if name[0] != "_"}
    sizes = {"block_out_channels": [32, 32, 32], "cross_attention_dim": SD2_WIDTH, "use_linear_projection": True}
    UNet2DConditionModel(**{**config, **sizes, "attention_head_dim": [4, 4, 4]}).save_pretrained(folder / "unet")
    text = json.loads((folder / "text_encoder/config.json").read_text())
    kept = {name: text[name] for name in ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")}
    wide = {"hidden_size": SD2_WIDTH, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 16, "hidden_act": "gelu"}
    shutil.rmtree(folder / "text_encoder")
    CLIPTextModel(CLIPTextConfig(**kept, **wide)).save_pretrained(folder / "text_encoder")
    return folder
