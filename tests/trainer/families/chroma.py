"""A tiny Chroma, and its losses as diffusers' ChromaPipeline computes them, with a mask that masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
from diffusers.pipelines.chroma.pipeline_chroma import ChromaPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import T5EncoderModel

from tests.trainer.families import flux, words
from tests.trainer.families.published_flux import DOUBLE, SINGLE, blocks
from tests.trainer.families.real import Real
from tests.trainer.families.reference import Texts
from tests.trainer.families.row import Row
from tests.trainer.sdxl.tiny_base import filled
from trainer.families._chroma_transformer import MaskedChroma

SCHEDULERS: dict[str, dict[str, Any]] = {"constant": {"shift": 3.0}, "by-size": flux.SCHEDULERS["dev"]}


def write(folder: Path, variant: str = "constant") -> Path:
    torch.manual_seed(20250601)
    t5, t5_words = words.t5_tokenizer()
    ChromaPipeline(
        vae=filled(flux.autoencoder()),
        text_encoder=filled(T5EncoderModel(flux.t5_config(t5_words))),
        tokenizer=t5,
        transformer=filled(_transformer(), gain=1.3),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULERS[variant]),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer() -> ChromaTransformer2DModel:
    return ChromaTransformer2DModel(
        in_channels=4 * flux.LATENTS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=flux.HEAD_WIDTH,
        num_attention_heads=flux.HEADS,
        joint_attention_dim=flux.T5_WIDTH,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )


class ChromaReference(flux.FluxReference):
    pipeline_class = ChromaPipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        longest = self.pipeline.tokenizer.model_max_length
        text, text_ids, seen, *_ = self.pipeline.encode_prompt(
            list(captions), device="cpu", do_classifier_free_guidance=False, max_sequence_length=longest
        )
        return {"encoder_hidden_states": text, "txt_ids": text_ids, "attention_mask": seen.bool()}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        rows, channels, height, width = noisy.shape
        tokens = ChromaPipeline._pack_latents(noisy, rows, channels, height, width)
        seen = self.pipeline._prepare_attention_mask(rows, tokens.shape[1], torch.float32, texts["attention_mask"])
        found = self.pipeline.transformer(
            hidden_states=tokens,
            timestep=sigmas,
            img_ids=ChromaPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32),
            **{**texts, "attention_mask": seen},
        ).sample
        factor = self.pipeline.vae_scale_factor
        return ChromaPipeline._unpack_latents(found, height * factor, width * factor, factor)


def prompts(pipeline: Any, prompt: str) -> dict[str, Any]:
    """Prompts as the unchanged pipeline takes them with a mask that masks."""
    text, _, seen, negative, _, negative_seen = pipeline.encode_prompt(prompt, device="cpu", max_sequence_length=words.MAX_TOKENS)
    return {
        "prompt_embeds": text,
        "prompt_attention_mask": seen.bool(),
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_seen.bool(),
    }


def published() -> dict[str, tuple[str, ...]]:
    """By kohya's name our modules: FLUX.1's without modulations, and the network that computes them."""
    approximator = "distilled_guidance_layer"
    layers = {
        f"lora_unet_{approximator}_layers_{number}_{theirs}": (f"{approximator}.layers.{number}.{ours}",)
        for number in range(5)
        for ours, theirs in (("linear_1", "in_layer"), ("linear_2", "out_layer"))
    }
    around = {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "final_layer_linear": "proj_out",
        **{f"{approximator}_{each}": f"{approximator}.{each}" for each in ("in_proj", "out_proj")},
    }
    double, single = ({name: each for name, each in names.items() if "mod" not in name} for names in (DOUBLE, SINGLE))
    return {**layers, **{f"lora_unet_{name}": (module,) for name, module in around.items()}, **blocks(19, 38, double, single)}


ROW = Row(
    family="chroma",
    write=write,
    variants=("constant", "by-size"),
    reference=ChromaReference,
    pipeline=ChromaPipeline,
    real=Real(
        built=MaskedChroma,  # its defaults are the published one's
        config={},
        latents=(16, 128, 128),
        conditioning={"text": (512, 4096), "seen": (512,)},
    ),
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "single_transformer_blocks.0.proj_out"),
    ),
    architectures={"constant": "chroma", "by-size": "chroma"},
    misfits={
        "another T5": ("text_encoder/config.json", {"d_model": 48}, "joint_attention_dim is not its d_model"),
        "other latents": ("vae/config.json", {"latent_channels": 16}, "in_channels is not 4 times its latent_channels"),
        "for editing": ("transformer/config.json", {"out_channels": 8}, "use the base that it was made from"),
        "another model": ("transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "ChromaTransformer2DModel"),
    },
    guidance_scale=4.0,
    prompts=prompts,
    load_kohya=flux.load_kohya,
    published=published,
)
