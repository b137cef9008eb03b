"""Chroma: T5 alone conditions a transformer of FLUX.1's kind, and its padding is masked but for one token (lodestones 2025).

Checked in diffusers: pipelines/chroma/pipeline_chroma.py and models/transformers/transformer_chroma.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorafleet.catalog.families import chroma
from lorafleet.catalog.part import PartKind
from trainer.families._chroma_transformer import MaskedChroma
from trainer.families._flow import FlowFamily
from trainer.families._packed import no_places, packed, places, unpacked
from trainer.families._parts import sampling_scheduler, tokenize, without_progress_bar
from trainer.families.protocol import Conditioning, Family, Loading, Parts
from trainer.objectives.flow import NUM_TIMES


class Chroma(FlowFamily):
    """Conditioning: `text` (rows, tokens, T5's width), `seen` (rows, tokens): 1 where the transformer sees a token."""

    facts = chroma.FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        found = super().load(part, base, how)
        if self.facts.part(part).kind is PartKind.DENOISER:
            found.__class__ = MaskedChroma
        return found

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """T5 sees no padding; the transformer sees the first token of it beside the text (`_get_t5_prompt_embeds`)."""
        t5, tokens = parts["text_encoder"], tokenize(parts["tokenizer"], captions)
        mask = tokens.attention_mask.to(t5.device)
        text = t5(tokens.input_ids.to(t5.device), attention_mask=mask).last_hidden_state
        return {"text": text, "seen": (torch.arange(mask.shape[1], device=mask.device) <= mask.sum(1, keepdim=True)).to(text.dtype)}

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The mask is of truth values: where the library's pipeline gives numbers, they are added to the attention and mask nothing
        (huggingface/diffusers#12116)."""
        (_, _, height, width), device, text = noisy.shape, noisy.device, conditioning["text"]
        tokens = packed(noisy)
        seen = torch.cat([conditioning["seen"] > 0, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device)], dim=1)
        predicted = parts["transformer"](
            tokens,
            encoder_hidden_states=text,
            timestep=times / NUM_TIMES,
            img_ids=places(height, width, device),
            txt_ids=no_places(text.shape[1], device),
            attention_mask=seen,
        ).sample
        return unpacked(predicted, height, width)

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        """Its `guidance_scale` is classifier-free guidance, away from the empty prompt."""
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from trainer.families._chroma_pipeline import MaskedChromaPipeline

        names = ("vae", "text_encoder", "tokenizer", "transformer")
        return without_progress_bar(
            MaskedChromaPipeline(**{name: parts[name] for name in names}, scheduler=sampling_scheduler(base, scheduler))
        )


FAMILY: Family = Chroma()
