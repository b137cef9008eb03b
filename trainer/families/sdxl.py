"""Stable Diffusion XL: two CLIP text encoders, and a UNet that is also told the sizes of its pictures (Podell et al. 2023)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorafleet.catalog.families import sdxl
from trainer.data.buckets import PictureSize
from trainer.families._parts import sampling_scheduler, tokenize, without_progress_bar
from trainer.families._unet import UNetFamily
from trainer.families.protocol import Conditioning, Family, Parts

_ENCODERS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))


class StableDiffusionXL(UNetFamily):
    """Conditioning: `text` (rows, tokens, both widths), `pooled` (rows, width of the second), `time_ids` (rows, 6)."""

    facts = sdxl.FACTS

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """Both encoders' last hidden state but one, side by side; of the second also its pooled, projected one."""
        encoded = [
            parts[encoder](tokenize(parts[tokenizer], captions).input_ids.to(parts[encoder].device), output_hidden_states=True)
            for tokenizer, encoder in _ENCODERS
        ]
        return {"text": torch.cat([each.hidden_states[-2] for each in encoded], dim=-1), "pooled": encoded[1].text_embeds}

    def condition(self, text: Conditioning, sizes: Sequence[PictureSize]) -> Conditioning:
        """The UNet takes the sizes in the order of `PictureSize`: original, crop, target; of each the height (or top) first."""
        return {**text, "time_ids": torch.tensor(sizes, dtype=torch.float32)}

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        return parts["unet"](noisy, times, conditioning["text"], added_cond_kwargs=added).sample

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

        index = json.loads((base / "model_index.json").read_text())
        return without_progress_bar(
            StableDiffusionXLPipeline(
                **{part.name: parts[part.name] for part in self.facts.parts if part.name != "scheduler"},
                scheduler=sampling_scheduler(base, scheduler),
                force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True) is not False,
                add_watermarker=False,
            )
        )


FAMILY: Family = StableDiffusionXL()
