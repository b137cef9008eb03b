"""A tiny FLUX.2 klein, and its losses as diffusers' Flux2KleinPipeline computes them."""

from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline, compute_empirical_mu
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.trainer.families import words
from tests.trainer.families.published_flux import DOUBLE, blocks
from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference, Texts
from tests.trainer.families.row import Row, load_file
from tests.trainer.sdxl.tiny_base import filled

TEXT_WIDTH, LATENTS, MAX_TOKENS = 16, 4, 64


def write(folder: Path, variant: str = "base") -> Path:
    torch.manual_seed(20260115)
    tokenizer, num_words = words.qwen_tokenizer(MAX_TOKENS)
    Flux2KleinPipeline(
        vae=_autoencoder(),
        text_encoder=filled(Qwen3ForCausalLM(_text_config(num_words))),
        tokenizer=tokenizer,
        transformer=filled(_transformer(), gain=1.3),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        is_distilled=variant == "distilled",
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _autoencoder() -> AutoencoderKLFlux2:
    vae: Any = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=4,
    )
    statistics = torch.arange(4.0 * LATENTS)
    vae.bn.running_mean.copy_(0.1 * statistics.sin())
    vae.bn.running_var.copy_(0.5 + 0.2 * statistics.cos())
    return filled(vae)


def _text_config(vocabulary: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=24,
        num_hidden_layers=28,  # 27 are read
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )


def _transformer() -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=4 * LATENTS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )


class Flux2Reference(FlowReference):
    pipeline_class = Flux2KleinPipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        text, text_ids = self.pipeline.encode_prompt(list(captions), device="cpu", max_sequence_length=MAX_TOKENS)
        return {"encoder_hidden_states": text, "txt_ids": text_ids}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        ids = Flux2KleinPipeline._prepare_latent_ids(noisy)
        found = self.pipeline.transformer(
            hidden_states=Flux2KleinPipeline._pack_latents(noisy), timestep=sigmas, guidance=None, img_ids=ids, **texts
        ).sample
        return Flux2KleinPipeline._unpack_latents_with_ids(found, ids)  # pyright: ignore[reportReturnType]

    def shift(self, height: int, width: int) -> float:
        return exp(compute_empirical_mu(height * width, num_steps=200))

    def latents_of(self, pixels: Tensor) -> Tensor:
        return self.pipeline._encode_vae_image(pixels, generator=None)


def published() -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules, of klein 9B: modulations are shared by the blocks of a kind, and lie around them."""
    around = {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in_in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in_out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "single_stream_modulation_lin": "single_stream_modulation.linear",
        "double_stream_modulation_img_lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt_lin": "double_stream_modulation_txt.linear",
        "final_layer_adaLN_modulation_1": "norm_out.linear",
        "final_layer_linear": "proj_out",
    }
    double: dict[str, tuple[str, ...]] = {name: modules for name, modules in DOUBLE.items() if "attn" in name}
    mlp = {"img": "ff", "txt": "ff_context"}
    double |= {f"{side}_mlp_{number}": (f"{ff}.linear_{end}",) for side, ff in mlp.items() for number, end in ((0, "in"), (2, "out"))}
    single = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
    return {**{f"lora_unet_{name}": (module,) for name, module in around.items()}, **blocks(8, 24, double, single)}


ROW = Row(
    family="flux2",
    write=write,
    variants=("base", "distilled"),
    reference=Flux2Reference,
    pipeline=Flux2KleinPipeline,
    real=Real(
        built=Flux2Transformer2DModel,
        config={  # klein 9B's
            "num_layers": 8,
            "num_single_layers": 24,
            "num_attention_heads": 32,
            "joint_attention_dim": 12288,
            "guidance_embeds": False,
        },
        latents=(128, 64, 64),
        patch=2,
        conditioning={"text": (512, 12288)},
    ),
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        *("to_qkv_mlp_proj", "single_transformer_blocks.0.attn.to_out", "x_embedder", "context_embedder"),
    ),
    architectures={"base": "Flux.2-klein-9b", "distilled": "Flux.2-klein-9b"},
    distilled=("distilled",),
    misfits={
        "another Qwen3": ("text_encoder/config.json", {"hidden_size": 24}, "joint_attention_dim is not 3 times its hidden_size"),
        "a short Qwen3": ("text_encoder/config.json", {"num_hidden_layers": 20}, "has fewer layers than the 27 that are read"),
        "other latents": ("vae/config.json", {"latent_channels": 16}, "in_channels is not 4 times its latent_channels"),
        "dev": ("transformer/config.json", {"guidance_embeds": True}, "as FLUX.2 dev"),
        "another autoencoder": ("vae/config.json", {"_class_name": "AutoencoderKL"}, "AutoencoderKLFlux2"),
    },
    guidance_scale=4.0,
    drawing={"max_sequence_length": MAX_TOKENS},
    load_kohya=load_file,
    published=published,
    swapped=("norm_out.linear",),
)
