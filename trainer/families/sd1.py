"""Stable Diffusion 1.x: CLIP text encoder, UNet with cross attention, KL autoencoder (Rombach et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.families.protocol import part_of_base
from trainer.untrusted import Refused

CLIP_TOKENS = 77  # that the text encoders of all releases take
_SAFE: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32, "output_loading_info": True}


class StableDiffusion1:
    """See families.protocol.Family."""

    def load_vae(self, base: Path, device: torch.device) -> nn.Module:
        return _whole(AutoencoderKL, base / "vae").to(device).eval().requires_grad_(False)

    def load_text_encoder(self, base: Path) -> nn.Module:
        return _whole(CLIPTextModel, base / "text_encoder").eval().requires_grad_(False)

    def load_tokenizer(self, base: Path, max_tokens: int = CLIP_TOKENS) -> CLIPTokenizer:
        with part_of_base("tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        tokenizer.model_max_length = min(tokenizer.model_max_length, max_tokens)
        return tokenizer

    def load_denoiser(self, base: Path) -> nn.Module:
        return _whole(UNet2DConditionModel, base / "unet").eval().requires_grad_(False)

    def load_noise_scheduler(self, base: Path) -> Any:
        with part_of_base("scheduler"):
            return DDPMScheduler.from_pretrained(base / "scheduler", local_files_only=True)

    @torch.no_grad()
    def encode_pictures(self, vae: Any, pictures: Sequence[Image.Image]) -> Tensor:
        arrays = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])  # (n, height, width, 3)
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 127.5 - 1
        # The mode, not a sample: the same picture is then the same latents, and the cache half the size.
        return (vae.encode(pixels.to(vae.device)).latent_dist.mode() * vae.config.scaling_factor).float().cpu()

    def tokenize(self, tokenizer: Any, captions: Sequence[str]) -> Tensor:
        encoded = tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
        )
        return encoded.input_ids

    def num_tokens(self, tokenizer: Any, captions: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]

    def encode_tokens(self, text_encoder: Any, tokens: Tensor) -> Tensor:
        return text_encoder(tokens.to(text_encoder.device)).last_hidden_state

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        return denoiser(noisy, timesteps, text).sample

    def pipeline(self, base: Path, scheduler: str, **parts: Any) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        with part_of_base("scheduler"):
            parts["scheduler"] = getattr(diffusers, scheduler).from_pretrained(base / "scheduler", local_files_only=True)
        # Not from_pretrained: that imports whatever model_index.json names.
        pipeline = StableDiffusionPipeline(**parts, **absent)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _whole(kind: Any, folder: Path) -> Any:
    """A model with every weight from its files. The libraries only warn of missing ones, and draw them at random."""
    with part_of_base(folder.name):
        model, found = kind.from_pretrained(folder, **_SAFE)
        if missing := sorted(found["missing_keys"]):
            raise Refused(f"its files lack {len(missing)} of its weights, such as {missing[0]}")
    return model
