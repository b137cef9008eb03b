"""A tiny Stable Diffusion 3, and its losses as diffusers' StableDiffusion3Pipeline computes them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from tests.trainer.families import words
from tests.trainer.families.published_mmdit import published
from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference, Texts, sigmoid_of_normal
from tests.trainer.families.row import Row
from tests.trainer.sdxl.tiny_base import filled

CLIP_WIDTHS, CLIP_POOLED = (24, 40), (16, 24)
T5_WIDTH = 72  # more than both of CLIP's: their text is padded to it
LATENTS = 4  # channels
NO_T5_TOKENS = 256  # of zeros, in the place of a T5 that is left out
# As the published bases are: 3 as it first came, 3.5 medium with more attention and norms, 3 without T5.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd3": {},
    "sd35-medium": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"},
    "without-t5": {},
}


def write(folder: Path, variant: str = "sd3") -> Path:
    torch.manual_seed(20240612)
    clip, clip_words = words.clip_tokenizer()
    t5, t5_words = words.t5_tokenizer()
    StableDiffusion3Pipeline(
        transformer=filled(_transformer(variant), gain=1.3),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=filled(autoencoder()),
        text_encoder=filled(CLIPTextModelWithProjection(_clip_config(0, clip_words))),
        tokenizer=clip,
        text_encoder_2=filled(CLIPTextModelWithProjection(_clip_config(1, clip_words))),
        tokenizer_2=clip,
        text_encoder_3=filled(T5EncoderModel(_t5_config(t5_words))),
        tokenizer_3=t5,
    ).save_pretrained(folder, safe_serialization=True)
    if variant == "without-t5":
        leave_out_t5(folder)
    return folder


def leave_out_t5(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
        index[part] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))


def _transformer(variant: str) -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=sum(CLIP_POOLED),
        pos_embed_max_size=12,
        **TRANSFORMERS[variant],
    )


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=4,
        scaling_factor=0.7,
        shift_factor=0.2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def _clip_config(number: int, vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=CLIP_WIDTHS[number],
        intermediate_size=48,
        num_hidden_layers=2 + number,
        num_attention_heads=4,
        max_position_embeddings=words.MAX_TOKENS,
        projection_dim=CLIP_POOLED[number],
        hidden_act=("quick_gelu", "gelu")[number],
        initializer_range=0.2,  # at the usual 0.02 and these widths all captions would be alike
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def _t5_config(vocabulary: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary,
        d_model=T5_WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        dropout_rate=0.0,
    )


class SD3Reference(FlowReference):
    pipeline_class = StableDiffusion3Pipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        captions, tokenizer = list(captions), self.pipeline.tokenizer_3
        longest = tokenizer.model_max_length if tokenizer is not None else NO_T5_TOKENS
        text, _, pooled, _ = self.pipeline.encode_prompt(
            captions, None, None, device="cpu", do_classifier_free_guidance=False, max_sequence_length=longest
        )
        return {"encoder_hidden_states": text, "pooled_projections": pooled}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        return self.pipeline.transformer(noisy, timestep=1000 * sigmas, **texts).sample

    def share_of_noise(self, generator: np.random.Generator) -> float:
        return sigmoid_of_normal(generator)


ROW = Row(
    family="sd3",
    write=write,
    variants=tuple(TRANSFORMERS),
    reference=SD3Reference,
    pipeline=StableDiffusion3Pipeline,
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("norm1.linear", "norm1_context.linear", "norm_out.linear"),
        *("proj_out", "context_embedder", "pos_embed.proj", "timestep_embedder.linear_1", "text_embedder.linear_2"),
    ),
    real=Real(
        built=SD3Transformer2DModel,  # 3.5 large
        config={
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
        latents=(16, 128, 128),
        conditioning={"clip": (77, 2048), "pooled": (2048,), "t5": (256, 4096)},
    ),
    architectures={
        "sd3": "stable-diffusion-3-medium",
        "sd35-medium": "stable-diffusion-3-5-medium",
        "without-t5": "stable-diffusion-3-medium",
    },
    misfits={
        "another T5": ("text_encoder_3/config.json", {"d_model": 64}, "joint_attention_dim is not text_encoder_3's d_model"),
        "another pooled text": ("text_encoder_2/config.json", {"projection_dim": 8}, "pooled_projection_dim is not the sum"),
        "wider text": ("text_encoder/config.json", {"hidden_size": 48}, "joint_attention_dim is less than the sum"),
        "other latents": ("vae/config.json", {"latent_channels": 16}, "in_channels is not its latent_channels"),
        "latents without a mean": ("vae/config.json", {"shift_factor": None}, "has no shift_factor"),
        "another width": ("transformer/config.json", {"caption_projection_dim": 48}, "caption_projection_dim that is not the width"),
        "for inpainting": ("transformer/config.json", {"out_channels": 8}, "use the base that it was made from"),
        "other norms": ("transformer/config.json", {"qk_norm": "layer_norm"}, "qk_norm that is not known"),
        "no number": ("transformer/config.json", {"pos_embed_max_size": "all"}, "pos_embed_max_size that is not a positive number"),
    },
    has_text_adapters=True,
    drawing={"max_sequence_length": words.MAX_TOKENS},
    published=published,
    swapped=("norm_out.linear", "transformer_blocks.37.norm1_context.linear"),
    step=8,
    pixels_per_latent=4,
)
