"""FLUX.1: CLIP's pooled text and T5's hidden states condition a transformer over packed latents (Black Forest Labs 2024).

Checked in diffusers: pipelines/flux/pipeline_flux.py (`encode_prompt`, `__call__`) and models/transformers/transformer_flux.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorafleet.catalog.families import flux
from trainer.families._flow import FlowFamily
from trainer.families._packed import no_places, packed, places, unpacked
from trainer.families._parts import sampling_scheduler, tokenize, without_progress_bar
from trainer.families.protocol import Conditioning, Family, Parts
from trainer.objectives.flow import NUM_TIMES

# The strength of guidance that dev is told in training: pictures are not guided ones, and 1 says so. The recipes of kohya
# (docs/flux_train_network.md) and of diffusers' example (--guidance_scale=1) have it; pictures are drawn at 3.5 or so.
TRAINING_GUIDANCE = 1.0


class Flux(FlowFamily):
    """Conditioning: `text` (rows, tokens, T5's width), `pooled` (rows, CLIP's width)."""

    facts = flux.FACTS

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """Padding is seen as text is: neither the pipeline nor the transformer masks it."""
        clip = parts["text_encoder"]
        pooled = clip(tokenize(parts["tokenizer"], captions).input_ids.to(clip.device)).pooler_output
        if (t5 := parts.get("text_encoder_2")) is None:
            return {"pooled": pooled}
        return {"text": t5(tokenize(parts["tokenizer_2"], captions).input_ids.to(t5.device)).last_hidden_state, "pooled": pooled}

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        transformer, (rows, _, height, width) = parts["transformer"], noisy.shape
        text, device = conditioning["text"], noisy.device
        guidance = torch.full((rows,), TRAINING_GUIDANCE, device=device) if transformer.config.guidance_embeds else None
        tokens = transformer(
            packed(noisy),
            encoder_hidden_states=text,
            pooled_projections=conditioning["pooled"],
            timestep=times / NUM_TIMES,
            guidance=guidance,
            img_ids=places(height, width, device),
            txt_ids=no_places(text.shape[1], device),
        ).sample
        return unpacked(tokens, height, width)

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        """Its `guidance_scale` is the strength that dev is told, and nothing to schnell: no prompt is computed twice."""
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

        names = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer")
        return without_progress_bar(FluxPipeline(**{name: parts[name] for name in names}, scheduler=sampling_scheduler(base, scheduler)))


FAMILY: Family = Flux()
