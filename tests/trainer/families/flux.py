"""A tiny FLUX.1, and its losses as diffusers' FluxPipeline computes them."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers.loaders import lora_conversion_utils, lora_pipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux import pipeline_flux
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from tests.trainer.families import words
from tests.trainer.families.published_flux import published
from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference, Texts
from tests.trainer.families.row import Row, load_file
from tests.trainer.sdxl.tiny_base import filled

CONVERTER = "_convert_kohya_flux_lora_to_diffusers"
HEADS, HEAD_WIDTH = 2, 16
LATENTS = 4  # channels
CLIP_WIDTH, T5_WIDTH = 24, 32
# As the published bases have them: dev's times are shifted by size, schnell's not at all.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "dev": {"shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64},
    "schnell": {"shift": 1.0, "use_dynamic_shifting": False},
}


def write(folder: Path, variant: str = "dev") -> Path:
    """`base_image_seq_len` and the other are small, so that the sizes of tiny pictures make a difference."""
    torch.manual_seed(20240801)
    clip, clip_words = words.clip_tokenizer()
    t5, t5_words = words.t5_tokenizer()
    FluxPipeline(
        vae=filled(autoencoder()),
        text_encoder=filled(CLIPTextModel(_clip_config(clip_words))),
        tokenizer=clip,
        text_encoder_2=filled(T5EncoderModel(t5_config(t5_words))),
        tokenizer_2=t5,
        transformer=filled(_transformer(variant), gain=1.3),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULERS[variant]),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=4,
        scaling_factor=0.7,
        shift_factor=0.2,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def t5_config(vocabulary: int) -> T5Config:
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


def _transformer(variant: str) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4 * LATENTS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=variant == "dev",
        axes_dims_rope=(4, 6, 6),
    )


def _clip_config(vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=CLIP_WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=words.MAX_TOKENS,
        projection_dim=CLIP_WIDTH,
        initializer_range=0.2,  # at the usual 0.02 and these widths all captions would be alike
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


class FluxReference(FlowReference):
    pipeline_class = FluxPipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        longest = self.pipeline.tokenizer_2.model_max_length
        text, pooled, text_ids = self.pipeline.encode_prompt(list(captions), device="cpu", max_sequence_length=longest)
        return {"encoder_hidden_states": text, "pooled_projections": pooled, "txt_ids": text_ids}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        rows, channels, height, width = noisy.shape
        has_guidance = self.pipeline.transformer.config.guidance_embeds
        found = self.pipeline.transformer(
            hidden_states=FluxPipeline._pack_latents(noisy, rows, channels, height, width),
            timestep=sigmas,
            guidance=torch.ones(rows) if has_guidance else None,
            img_ids=FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32),
            **texts,
        ).sample
        factor = self.pipeline.vae_scale_factor
        return FluxPipeline._unpack_latents(found, height * factor, width * factor, factor)

    def shift(self, height: int, width: int) -> float:
        config = self.pipeline.scheduler.config
        if not config.use_dynamic_shifting:
            return config.shift
        points = (config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift)
        return float(torch.tensor(pipeline_flux.calculate_shift(height // 2 * (width // 2), *points), dtype=torch.float64).exp())


def load_kohya(pipeline: Any, path: Path) -> None:
    """By diffusers' own converter: it takes a block of one stream for FLUX.1's, 3072 wide, and nothing else; here it is told ours."""
    width = HEADS * HEAD_WIDTH
    source = inspect.getsource(vars(lora_conversion_utils)[CONVERTER])
    sizes = "[3072, 3072, 3072, 12288]"
    assert sizes in source
    room = dict(vars(lora_conversion_utils))
    exec(source.replace(sizes, str([width, width, width, 4 * width])), room)
    with patch.object(lora_pipeline, CONVERTER, room[CONVERTER]):
        load_file(pipeline, path)


ROW = Row(
    family="flux",
    write=write,
    variants=("dev", "schnell"),
    reference=FluxReference,
    pipeline=FluxPipeline,
    real=Real(
        built=FluxTransformer2DModel,  # its defaults are FLUX.1's
        config={"guidance_embeds": True},
        latents=(16, 128, 128),
        conditioning={"text": (512, 4096), "pooled": (768,)},
    ),
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "single_transformer_blocks.0.proj_out", "norm1.linear", "norm1_context.linear", "norm.linear"),
    ),
    architectures={"dev": "flux-1-dev", "schnell": "flux-1-schnell"},
    distilled=("schnell",),
    misfits={
        "another T5": ("text_encoder_2/config.json", {"d_model": 48}, "joint_attention_dim is not its d_model"),
        "another CLIP": ("text_encoder/config.json", {"hidden_size": 48}, "pooled_projection_dim is not its hidden_size"),
        "other latents": ("vae/config.json", {"latent_channels": 16}, "in_channels is not 4 times its latent_channels"),
        "for editing": ("transformer/config.json", {"out_channels": 8}, "use the base that it was made from"),
        "packed inside": ("transformer/config.json", {"patch_size": 2}, "patch_size that is not 1"),
        "latents without a mean": ("vae/config.json", {"shift_factor": None}, "has no shift_factor"),
        "another schedule": ("scheduler/scheduler_config.json", {"time_shift_type": "linear"}, "time_shift_type"),
        "another model": ("transformer/config.json", {"_class_name": "ChromaTransformer2DModel"}, "FluxTransformer2DModel"),
    },
    has_text_adapters=True,
    drawing={"max_sequence_length": words.MAX_TOKENS},
    load_kohya=load_kohya,
    published=published,
    swapped=("norm_out.linear",),
)
