"""Z-Image: one stream of text and picture, text read by Qwen3 as a chat's question, rectified flow (Tongyi Lab 2025).

Checked in diffusers: pipelines/z_image/pipeline_z_image.py and models/transformers/transformer_z_image.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lorafleet.catalog.families import zimage
from lorafleet.catalog.part import PartKind
from trainer.families._chat import Chat
from trainer.families._flow import FlowFamily
from trainer.families._parts import first_those_there, sampling_scheduler, tokenize, without_progress_bar
from trainer.families._zimage_rows import ZImageRows
from trainer.families.protocol import Conditioning, Family, Loading, Parts
from trainer.objectives.flow import NUM_TIMES

# What Qwen3's own template makes of one question when the answer may begin with thoughts.
CHAT = Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")


class ZImage(FlowFamily):
    """Conditioning: `text` (rows, tokens, Qwen3's width), zero where there is none, `present` (rows, tokens), 1 where there is text."""

    facts = zimage.FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        found = super().load(part, base, how)
        if self.facts.part(part).kind is PartKind.DENOISER:
            found.__class__ = ZImageRows
        elif self.facts.part(part).kind is PartKind.TOKENIZER:
            found.chat_template = CHAT.template
        return found

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """The last hidden state but one of the tokens that are there, moved to the beginning."""
        encoder = parts["text_encoder"]
        tokens = tokenize(parts["tokenizer"], CHAT.asked(captions)).to(encoder.device)
        there = tokens.attention_mask.bool()
        states = encoder(tokens.input_ids, attention_mask=there, output_hidden_states=True).hidden_states[-2]
        states, there = first_those_there(states, there)
        return {"text": states * there[..., None], "present": there.float()}

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return super().num_tokens(parts, CHAT.asked(captions))

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """It is told how much is done, from 0 to 1, and says the way from noise to latents: the reverse of the others."""
        done = (NUM_TIMES - times) / NUM_TIMES
        return -parts["transformer"](noisy, done, conditioning["text"], present=conditioning["present"] > 0)

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

        given = {part.name: parts[part.name] for part in self.facts.parts if part.kind is not PartKind.SCHEDULER}
        return without_progress_bar(ZImagePipeline(**given, scheduler=sampling_scheduler(base, scheduler)))


FAMILY: Family = ZImage()
