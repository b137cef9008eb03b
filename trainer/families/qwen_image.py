"""Qwen-Image: text read by Qwen2.5-VL inside a fixed question, latents of one frame of a film, packed (Qwen team 2025).

Checked in diffusers: pipelines/qwenimage/pipeline_qwenimage.py and models/transformers/transformer_qwenimage.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lorafleet.catalog.families import qwen_image
from lorafleet.catalog.part import PartKind
from lorafleet.spec import ValidationSpec
from trainer.families import _parts
from trainer.families._chat import Chat
from trainer.families._flow import FlowFamily
from trainer.families._packed import PATCH, packed, unpacked
from trainer.families.protocol import Conditioning, Family, Parts, Posterior
from trainer.objectives.flow import NUM_TIMES

# The pipeline's `prompt_template_encode`; of the states its first tokens are dropped, up to where the prompt begins.
CHAT = Chat(
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n",
)
NUM_DROPPED = 34


class QwenImage(FlowFamily):
    """Conditioning: `text` (rows, tokens, Qwen's width), zero where there is none, `present` (rows, tokens), 1 where there is text."""

    facts = qwen_image.FACTS

    @torch.no_grad()
    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        """Each is a film of one frame; every channel has a mean and a scale of its own."""
        vae = parts["vae"]
        found = vae.encode(_parts.pixels_of(pictures).to(vae.device)[:, :, None]).latent_dist
        mode, deviation = (each[:, :, 0] for each in (found.mode(), found.std))
        mean, scale = (torch.tensor(each, device=mode.device)[:, None, None] for each in (vae.config.latents_mean, vae.config.latents_std))
        return Posterior(((mode - mean) / scale).float().cpu(), (deviation / scale).float().cpu())

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """The last hidden state of the tokens that are there, without those of the template before the prompt."""
        encoder, tokenizer = parts["text_encoder"], parts["tokenizer"]
        longest = tokenizer.model_max_length + NUM_DROPPED
        tokens = tokenizer(CHAT.asked(captions), padding="max_length", truncation=True, max_length=longest, return_tensors="pt").to(
            encoder.device
        )
        there = tokens.attention_mask.bool()
        states = encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True).hidden_states[-1]
        states, there = (each[:, NUM_DROPPED:] for each in _parts.first_those_there(states, there))
        return {"text": states * there[..., None], "present": there.float()}

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return [number - NUM_DROPPED for number in super().num_tokens(parts, CHAT.asked(captions))]

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        rows, _, height, width = noisy.shape
        tokens = parts["transformer"](
            packed(noisy),
            encoder_hidden_states=conditioning["text"],
            encoder_hidden_states_mask=conditioning["present"] > 0,
            timestep=times / NUM_TIMES,
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * rows,
        ).sample
        return unpacked(tokens, height, width)

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline

        class Guided(QwenImagePipeline):
            """Away from the empty prompt, once for each: the library's takes one negative prompt for one prompt."""

            def __call__(self, prompt: Sequence[str], negative_prompt: Sequence[str] = (), **how: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
                library: Any = super()  # whose types are not whole
                return library.__call__(list(prompt), negative_prompt=list(negative_prompt) or [""] * len(prompt), **how)

        given: dict[str, Any] = {part.name: parts[part.name] for part in self.facts.parts if part.kind is not PartKind.SCHEDULER}
        return _parts.without_progress_bar(Guided(**given, scheduler=_parts.sampling_scheduler(base, scheduler)))

    def drawing(self, parts: Parts, spec: ValidationSpec) -> Mapping[str, Any]:
        """Its `guidance_scale` is for bases that were distilled; classifier-free guidance is `true_cfg_scale`."""
        return {"true_cfg_scale": spec.guidance_scale, "max_sequence_length": self._most_tokens(parts)}


FAMILY: Family = QwenImage()
