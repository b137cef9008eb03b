"""A tiny Z-Image, and its losses as diffusers' ZImagePipeline computes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from tests.trainer.families import words
from tests.trainer.families.published_zimage import published
from tests.trainer.families.real import Real
from tests.trainer.families.reference import FlowReference, Texts
from tests.trainer.families.row import Row
from tests.trainer.families.sd3 import autoencoder
from tests.trainer.sdxl.tiny_base import filled
from trainer.families._zimage_rows import ZImageRows

TEXT_WIDTH = 24
MAX_TOKENS = 40  # more than the 32 that texts are filled up to
SCHEDULERS: dict[str, dict[str, Any]] = {"turbo": {"shift": 3.0}, "base": {"shift": 6.0}}


def write(folder: Path, variant: str = "turbo") -> Path:
    torch.manual_seed(20251126)
    tokenizer, number = words.qwen_tokenizer(MAX_TOKENS)
    transformer = filled(_transformer(), gain=1.3)
    with torch.no_grad():
        for token in (transformer.x_pad_token, transformer.cap_pad_token):
            token.normal_()
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULERS[variant]),
        vae=filled(autoencoder()),
        text_encoder=filled(Qwen3Model(_text_config(number))),
        tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
        transformer=transformer,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=48,  # its MLPs are 8 / 3 as wide: 128
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 8, 8],
        axes_lens=[128, 24, 24],
    )


def _text_config(vocabulary: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )


class ZImageReference(FlowReference):
    pipeline_class = ZImagePipeline

    def texts(self, captions: Sequence[str]) -> Texts:
        longest = self.pipeline.tokenizer.model_max_length
        found, _ = self.pipeline.encode_prompt(list(captions), "cpu", do_classifier_free_guidance=False, max_sequence_length=longest)
        return {"cap_feats": found}

    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        """Row by row: an adapter of PEFT's sees no difference."""
        found = self.pipeline.transformer(list(noisy.unsqueeze(2)), (1000 - 1000 * sigmas) / 1000, **texts, return_dict=False)[0]
        return -torch.stack(found).squeeze(2)


ROW = Row(
    family="zimage",
    write=write,
    variants=tuple(SCHEDULERS),
    reference=ZImageReference,
    pipeline=ZImagePipeline,
    target_modules=(
        *("to_q", "to_k", "to_v", "to_out.0", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        # Not "adaLN_modulation.0" alone: of the last layer that is no linear one, which PEFT minds.
        *("noise_refiner.0.adaLN_modulation.0", "layers.0.adaLN_modulation.0", "layers.1.adaLN_modulation.0"),
        *(
            "all_x_embedder.2-1",
            "all_final_layer.2-1.linear",
            "all_final_layer.2-1.adaLN_modulation.1",
            "cap_embedder.1",
            "t_embedder.mlp.0",
        ),
    ),
    real=Real(built=ZImageRows, config={}, latents=(16, 128, 128), conditioning={"text": (512, 2560), "present": (512,)}),
    architectures={"turbo": "z-image", "base": "z-image"},
    distilled=("turbo",),
    misfits={
        "another Qwen": ("text_encoder/config.json", {"hidden_size": 32}, "cap_feat_dim is not its hidden_size"),
        "other latents": ("vae/config.json", {"latent_channels": 16}, "in_channels is not its latent_channels"),
        "latents without a mean": ("vae/config.json", {"shift_factor": None}, "has no shift_factor"),
        "other patches": ("transformer/config.json", {"all_patch_size": [2, 4]}, "all_patch_size"),
        "for editing": ("transformer/config.json", {"siglip_feat_dim": 16}, "use the base that draws from text"),
        "no table of places": ("transformer/config.json", {"axes_lens": [1024, 512]}, "axes_lens that are not three positive numbers"),
        "no number": ("transformer/config.json", {"dim": None}, "dim that is not a positive number"),
    },
    drawing={"max_sequence_length": MAX_TOKENS},
    step=8,
    pixels_per_latent=4,
    published=published,
)
