"""Stable Diffusion 3 and 3.5: a transformer of text and picture, three text encoders, rectified flow (Esser et al. 2024)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lorafleet.catalog.families import sd3
from lorafleet.spec import ValidationSpec
from trainer.families._flow import FlowFamily
from trainer.families._parts import sampling_scheduler, tokenize, without_progress_bar
from trainer.families.protocol import Conditioning, Family, Parts
from trainer.objectives.times import logit_normal

_CLIPS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))


class StableDiffusion3(FlowFamily):
    """Conditioning: `clip` (rows, CLIP's tokens, both widths), `pooled` (rows, both projections), and of a base that has it
    `t5` (rows, 256, its width). Text is put together as diffusers' StableDiffusion3Pipeline.encode_prompt does.
    """

    facts = sd3.FACTS
    density = staticmethod(logit_normal)  # as the paper found best (section 3.1)

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """Of both CLIPs the last hidden state but one, and the pooled text; T5's last state, of padding too, for nothing masks it."""
        clips = [
            parts[encoder](tokenize(parts[tokenizer], captions).input_ids.to(parts[encoder].device), output_hidden_states=True)
            for tokenizer, encoder in _CLIPS
        ]
        text = {
            "clip": torch.cat([each.hidden_states[-2] for each in clips], dim=-1),
            "pooled": torch.cat([each.text_embeds for each in clips], dim=-1),
        }
        return {**text, "t5": _of_t5(parts, captions)} if "text_encoder_3" in parts else text

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Without T5 there are zeros in its place, as the base was trained with (a text encoder is dropped at times, appendix B.3)."""
        transformer, clip = parts["transformer"], conditioning["clip"]
        width = transformer.config.joint_attention_dim
        t5 = conditioning["t5"] if "t5" in conditioning else clip.new_zeros(len(clip), sd3.T5_TOKENS, width)
        text = torch.cat([pad(clip, (0, width - clip.shape[-1])), t5], dim=-2)
        return transformer(noisy, encoder_hidden_states=text, pooled_projections=conditioning["pooled"], timestep=times).sample

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """Its `max_sequence_length` is T5's, or that of the zeros in its place."""
        longest = parts["tokenizer_3"].model_max_length if "tokenizer_3" in parts else sd3.T5_TOKENS
        return {"guidance_scale": spec.guidance_scale, "max_sequence_length": longest}

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

        given: dict[str, Any] = {part.name: parts.get(part.name) for part in self.facts.parts if part.name != "scheduler"}
        return without_progress_bar(StableDiffusion3Pipeline(**given, scheduler=sampling_scheduler(base, scheduler)))


def _of_t5(parts: Parts, captions: Sequence[str]) -> Tensor:
    encoder = parts["text_encoder_3"]
    return encoder(tokenize(parts["tokenizer_3"], captions).input_ids.to(encoder.device))[0]


FAMILY: Family = StableDiffusion3()
