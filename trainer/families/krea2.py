"""Krea 2: twelve layers of Qwen3-VL, of a prompt inside Qwen-Image's question, and Qwen-Image's latents, packed (Krea AI 2026).

Checked in diffusers: pipelines/krea2/pipeline_krea2.py and models/transformers/transformer_krea2.py.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorafleet.catalog.families import krea2
from lorafleet.catalog.part import PartKind
from lorafleet.spec import ValidationSpec
from trainer.families import _parts
from trainer.families._krea2_rows import by_rows
from trainer.families._packed import no_places, packed, places, unpacked
from trainer.families.protocol import Conditioning, Family, Loading, Parts, part_of_base
from trainer.families.qwen_image import CHAT, NUM_DROPPED, QwenImage
from trainer.objectives.flow import NUM_TIMES
from trainer.untrusted import Refused

NUM_BEHIND = 5  # tokens that stand behind a prompt and what fills it up (`prompt_template_encode_num_suffix_tokens`)


class Krea2(QwenImage):
    """Conditioning: `text` (rows, tokens, layers, Qwen3-VL's width), zero where there is none, `present` (rows, tokens)."""

    facts = krea2.FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        if self.facts.part(part).kind is not PartKind.DENOISER:
            return super().load(part, base, how)
        _check_settings(base)
        return by_rows(super().load(part, base, how))

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """A prompt is filled up before what stands behind it; places count only the tokens that are there."""
        encoder, tokenizer = parts["text_encoder"].language_model, parts["tokenizer"]
        longest = tokenizer.model_max_length + NUM_DROPPED - NUM_BEHIND
        padded = {"padding": "max_length", "padding_side": "right", "truncation": True, "max_length": longest, "return_tensors": "pt"}
        prompts = tokenizer([f"{CHAT.before}{caption}" for caption in captions], **padded)
        behind = tokenizer([CHAT.behind] * len(captions), return_tensors="pt")
        ids, there = (torch.cat([prompts[name], behind[name]], dim=1).to(encoder.device) for name in ("input_ids", "attention_mask"))
        states = encoder(
            input_ids=ids,
            attention_mask=there.bool(),
            position_ids=(there.cumsum(dim=1) - 1).clamp(min=0).expand(3, -1, -1),  # of time, rows and columns, which text has alike
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        text = torch.stack([states[layer] for layer in krea2.TEXT_LAYERS], dim=2)[:, NUM_DROPPED:]
        there = there[:, NUM_DROPPED:]
        return {"text": text * there[..., None, None], "present": there.float()}

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        text, (height, width) = conditioning["text"], noisy.shape[2:]
        where = torch.cat([no_places(text.shape[1], noisy.device), places(height, width, noisy.device)])
        tokens = parts["transformer"](
            packed(noisy),
            encoder_hidden_states=text,
            encoder_attention_mask=conditioning["present"] > 0,
            timestep=times / NUM_TIMES,
            position_ids=where,
        ).sample
        return unpacked(tokens, height, width)

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.krea2.pipeline_krea2 import Krea2Pipeline

        given: dict[str, Any] = {part.name: parts[part.name] for part in self.facts.parts if part.kind is not PartKind.SCHEDULER}
        is_distilled = _index(base).get("is_distilled") is True
        return _parts.without_progress_bar(
            Krea2Pipeline(**given, scheduler=_parts.sampling_scheduler(base, scheduler), is_distilled=is_distilled)
        )

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """Its guidance is counted from 0, which is none: what is added of the way from the empty prompt."""
        return {"guidance_scale": spec.guidance_scale, "max_sequence_length": self._most_tokens(parts)}


def _index(base: Path) -> Mapping[str, Any]:
    return json.loads((base / "model_index.json").read_text())


def _check_settings(base: Path) -> None:
    """A pipeline's index may name other layers to read, and other squares to pack."""
    index, facts = _index(base), {"text_encoder_select_layers": [*krea2.TEXT_LAYERS], "patch_size": krea2.PATCH}
    with part_of_base("transformer"):
        for name, published in facts.items():
            if index.get(name, published) not in (published, None):
                raise Refused(f"model_index.json says another {name} than that of Krea 2, {published}")


FAMILY: Family = Krea2()
