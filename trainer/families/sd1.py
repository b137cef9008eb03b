"""Stable Diffusion 1.x: one CLIP text encoder, whose last hidden state is the only conditioning (Rombach et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lorafleet.catalog.families import sd1
from trainer.data.buckets import PictureSize
from trainer.families._parts import sampling_scheduler, tokenize, without_progress_bar
from trainer.families._unet import UNetFamily
from trainer.families.protocol import Conditioning, Family, Parts


class StableDiffusion1(UNetFamily):
    """Conditioning: `text` (rows, tokens, width)."""

    facts = sd1.FACTS

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        encoder = parts["text_encoder"]
        return {"text": encoder(tokenize(parts["tokenizer"], captions).input_ids.to(encoder.device)).last_hidden_state}

    def condition(self, text: Conditioning, sizes: Sequence[PictureSize]) -> Conditioning:
        return text

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        return parts["unet"](noisy, times, conditioning["text"]).sample

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        # Not from_pretrained: that imports whatever model_index.json names.
        return without_progress_bar(
            StableDiffusionPipeline(
                **{name: parts[name] for name in ("unet", "vae", "text_encoder", "tokenizer")},
                scheduler=sampling_scheduler(base, scheduler),
                safety_checker=None,  # pyright: ignore[reportArgumentType]
                feature_extractor=None,  # pyright: ignore[reportArgumentType]
                requires_safety_checker=False,
            )
        )


FAMILY: Family = StableDiffusion1()
