"""What the families with a UNet, a KL autoencoder and CLIP text encoders share. Every part is loaded whole, or not at all."""

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
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lorafleet.catalog.family import Family as FamilyFacts
from lorafleet.catalog.family import PartKind
from lorafleet.spec import OptimizationSpec
from trainer.families.protocol import Parts, part_of_base
from trainer.objectives.diffusion import Diffusion
from trainer.untrusted import Refused

_SAFE: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32, "output_loading_info": True}
_MODELS = {
    kind.__name__: kind for kind in (AutoencoderKL, UNet2DConditionModel, CLIPTextModel, CLIPTextModelWithProjection)
}  # the only classes that are built


class UNetFamily:
    """See families.protocol.Family. What is left to a family: `encode_text`, `predict`, `pipeline`."""

    facts: FamilyFacts

    def load(self, part: str, base: Path, max_tokens: int) -> Any:
        facts = self.facts.part(part)
        match facts.kind:
            case PartKind.TOKENIZER:
                return _tokenizer(base / part, max_tokens)
            case PartKind.SCHEDULER:
                with part_of_base(part):
                    return DDPMScheduler.from_pretrained(base / part, local_files_only=True)
            case _:
                return _whole(_MODELS[facts.classes[0]], base / part)

    @torch.no_grad()
    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Tensor:
        vae = parts[self.facts.autoencoder.name]
        arrays = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])  # (n, height, width, 3)
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 127.5 - 1
        # The mode, not a sample: the same picture is then the same latents, and the cache half the size.
        return (vae.encode(pixels.to(vae.device)).latent_dist.mode() * vae.config.scaling_factor).float().cpu()

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        tokenizer = parts[self.facts.tokenizers[0].name]
        return [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]

    def objective(self, parts: Parts, spec: OptimizationSpec) -> Diffusion:
        return Diffusion.of(parts["scheduler"], spec)


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """Token ids, padded and cut: (rows, tokens)."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
    return encoded.input_ids


def sampling_scheduler(base: Path, scheduler: str) -> Any:
    """The base's own scheduler, by the name of its class in diffusers."""
    with part_of_base("scheduler"):
        return getattr(diffusers, scheduler).from_pretrained(base / "scheduler", local_files_only=True)


def _tokenizer(folder: Path, max_tokens: int) -> CLIPTokenizer:
    with part_of_base(folder.name):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_tokens)
    return tokenizer


def _whole(kind: Any, folder: Path) -> Any:
    """A model with every weight from its files. The libraries only warn of missing ones, and draw them at random."""
    with part_of_base(folder.name):
        model, found = kind.from_pretrained(folder, **_SAFE)
        if missing := sorted(found["missing_keys"]):
            raise Refused(f"its files lack {len(missing)} of its weights, such as {missing[0]}")
    return model.eval().requires_grad_(False)
