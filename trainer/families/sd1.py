"""Stable Diffusion 1.x: CLIP text encoder, UNet with cross attention, KL autoencoder (Rombach et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

_SAFE: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32}


class StableDiffusion1:
    """See families.protocol.Family."""

    def load_vae(self, base: Path, device: torch.device) -> nn.Module:
        vae: Any = AutoencoderKL.from_pretrained(base / "vae", **_SAFE)
        return vae.to(device).eval().requires_grad_(False)

    def load_text_encoder(self, base: Path) -> nn.Module:
        return CLIPTextModel.from_pretrained(base / "text_encoder", **_SAFE).eval().requires_grad_(False)

    def load_tokenizer(self, base: Path) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)

    def load_denoiser(self, base: Path) -> nn.Module:
        return UNet2DConditionModel.from_pretrained(base / "unet", **_SAFE).eval().requires_grad_(False)

    def load_noise_scheduler(self, base: Path) -> Any:
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

    def encode_tokens(self, text_encoder: Any, tokens: Tensor) -> Tensor:
        return text_encoder(tokens.to(text_encoder.device)).last_hidden_state

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        return denoiser(noisy, timesteps, text).sample

    def pipeline(self, base: Path, denoiser: Any, text_encoder: Any) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        parts = {"unet": denoiser, "text_encoder": text_encoder, "safety_checker": None, "feature_extractor": None}
        pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, **parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
