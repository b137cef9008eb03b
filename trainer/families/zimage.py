"""Z-Image: one stream of text and picture, text read by Qwen3 as a chat's question, rectified flow (Tongyi Lab 2025).

Checked in diffusers: pipelines/z_image/pipeline_z_image.py and models/transformers/transformer_z_image.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorafleet.catalog.families import zimage
from lorafleet.catalog.part import PartKind
from lorafleet.spec import OptimizationSpec
from trainer.families._flow import FlowFamily
from trainer.families._parts import sampling_scheduler, tokenize
from trainer.families._zimage_rows import ZImageRows
from trainer.families.protocol import Conditioning, Family, Loading, Parts
from trainer.objectives.flow import NUM_TIMES, FlowMatching, by_tokens, constant

# What Qwen3's own template makes of one question when the answer may begin with thoughts. A base's file may hold any program in its
# template's place: none of them is run.
BEFORE, BEHIND = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE = f"{{{{ {BEFORE!r} + messages[0]['content'] + {BEHIND!r} }}}}"  # jinja's: lines end inside the expression, or they are lost


class ZImage(FlowFamily):
    """Conditioning: `text` (rows, tokens, Qwen3's width), zero where there is none, `present` (rows, tokens), 1 where there is text."""

    facts = zimage.FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        found = super().load(part, base, how)
        if self.facts.part(part).kind is PartKind.DENOISER:
            found.__class__ = ZImageRows
        elif self.facts.part(part).kind is PartKind.TOKENIZER:
            found.chat_template = TEMPLATE
        return found

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """The last hidden state but one of the tokens that are there, moved to the beginning."""
        encoder = parts["text_encoder"]
        tokens = tokenize(parts["tokenizer"], _asked(captions)).to(encoder.device)
        there = tokens.attention_mask.bool()
        states = encoder(tokens.input_ids, attention_mask=there, output_hidden_states=True).hidden_states[-2]
        order = (~there).to(torch.uint8).argsort(dim=1, stable=True)
        there, states = there.gather(1, order), states.gather(1, order[..., None].expand_as(states))
        return {"text": states * there[..., None], "present": there.float()}

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return super().num_tokens(parts, _asked(captions))

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """It is told how much is done, from 0 to 1, and says the way from noise to latents: the reverse of the others."""
        done = (NUM_TIMES - times) / NUM_TIMES
        return -parts["transformer"](noisy, done, conditioning["text"], present=conditioning["present"] > 0)

    def objective(self, parts: Parts, spec: OptimizationSpec) -> FlowMatching:
        """Times are shifted as the base's scheduler shifts them: Turbo's by 3."""
        config = parts["scheduler"].config
        return FlowMatching(shift=by_tokens(config, zimage.PATCH) if config.use_dynamic_shifting else constant(config.shift))

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

        given = {part.name: parts[part.name] for part in self.facts.parts if part.kind is not PartKind.SCHEDULER}
        pipeline = ZImagePipeline(**given, scheduler=sampling_scheduler(base, scheduler))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _asked(captions: Sequence[str]) -> list[str]:
    return [f"{BEFORE}{caption}{BEHIND}" for caption in captions]


FAMILY: Family = ZImage()
