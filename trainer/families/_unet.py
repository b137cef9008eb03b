"""What the families with a UNet, a KL autoencoder and CLIP text encoders share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image

from lorafleet.catalog.family import Family as FamilyFacts
from lorafleet.spec import Spec, ValidationSpec
from trainer.families import _parts
from trainer.families.protocol import Loading, Parts, Posterior
from trainer.objectives.diffusion import Diffusion


class UNetFamily:
    """See families.protocol.Family. What is left to a family: `encode_text`, `condition`, `predict`, `pipeline`."""

    facts: FamilyFacts

    def load(self, part: str, base: Path, how: Loading) -> Any:
        return _parts.load(self.facts.part(part), base / part, how, DDPMScheduler)

    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        return _parts.latents_of(parts[self.facts.autoencoder.name], pictures)

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return _parts.num_tokens(parts[self.facts.tokenizers[0].name], captions)

    def objective(self, parts: Parts, spec: Spec) -> Diffusion:
        return Diffusion.of(parts["scheduler"], spec)

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """Classifier-free guidance (Ho and Salimans 2022)."""
        return {"guidance_scale": spec.guidance_scale}
