"""A base model's parts in this process: loaded when first asked for, and kept for the next pack on the same base."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer import base_copy
from trainer.base_model import BaseModel
from trainer.families import family


class FrozenBase:
    """The parts of one base at one precision."""

    def __init__(self, base: BaseModel, precision: str, device: torch.device) -> None:
        self.base, self.precision, self.device = base, precision, device
        self.family = family(base.family)

    def serves(self, base: BaseModel, precision: str, device: torch.device) -> bool:
        return (self.base.digest, self.precision, self.device) == (base.digest, precision, device)

    def load(self) -> None:
        """Loads what every pack needs, so that a base that cannot be loaded is found before anything depends on it."""
        _ = self.denoiser, self.noise_scheduler

    @cached_property
    def path(self) -> Path:
        return base_copy.materialise(self.base)

    @cached_property
    def denoiser(self) -> nn.Module:
        loaded = self.family.load_denoiser(self.path)
        return (loaded.to(torch.bfloat16) if self.precision == "bf16" else loaded).to(self.device)

    @cached_property
    def text_encoder(self) -> nn.Module:
        return self.family.load_text_encoder(self.path).to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        return self.family.load_tokenizer(self.path, self.base.facts.max_tokens)

    @cached_property
    def noise_scheduler(self) -> Any:
        return self.family.load_noise_scheduler(self.path)

    def load_vae(self) -> nn.Module:
        """Not cached: it is only needed for encoding."""
        return self.family.load_vae(self.path, self.device)

    def pipeline(self, denoiser: nn.Module) -> Any:
        """A diffusers pipeline that draws with `denoiser`, in the place of the base's own."""
        vae = self.family.load_vae(self.path, torch.device("cpu"))
        parts = {"unet": denoiser, "text_encoder": self.text_encoder, "tokenizer": self.tokenizer, "vae": vae}
        return self.family.pipeline(self.path, self.base.facts.scheduler, **parts)
