"""FLUX.2 klein: three layers of Qwen3 condition a transformer over squares of latents, normalised (Black Forest Labs 2026).

Checked in diffusers: pipelines/flux2/pipeline_flux2_klein.py and models/transformers/transformer_flux2.py.
"""

import json
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lorafleet.catalog.families import flux2
from lorafleet.catalog.part import PartKind
from trainer.families._chat import Chat
from trainer.families._flow import FlowFamily
from trainer.families._parts import pixels_of, sampling_scheduler, tokenize, without_progress_bar
from trainer.families.protocol import Conditioning, Family, Loading, Parts, Posterior
from trainer.objectives.flow import NUM_TIMES
from trainer.objectives.times import Shift

# What Qwen3's own template makes of one question when the answer is to begin without thoughts.
CHAT = Chat("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")


class Flux2(FlowFamily):
    """Conditioning: `text` (rows, tokens, three times Qwen3's width). Latents are squares of 2 x 2 as channels, normalised."""

    facts = flux2.FACTS

    def load(self, part: str, base: Path, how: Loading) -> Any:
        found = super().load(part, base, how)
        if self.facts.part(part).kind is PartKind.TOKENIZER:
            found.chat_template = CHAT.template
        return found

    @torch.no_grad()
    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        """(rows, 4 * channels, height / 16, width / 16), as `_encode_vae_image` has them: by the autoencoder's statistics."""
        vae = parts["vae"]
        found = vae.encode(pixels_of(pictures).to(vae.device)).latent_dist
        mode, deviation = (F.pixel_unshuffle(each, flux2.PATCH) for each in (found.mode(), found.std))
        mean, variance = (each[:, None, None] for each in (vae.bn.running_mean, vae.bn.running_var))
        scale = (variance + vae.config.batch_norm_eps).sqrt()
        return Posterior(((mode - mean) / scale).float().cpu(), (deviation / scale).float().cpu())

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        """States of three layers side by side, of padding too: the transformer masks none of it."""
        encoder = parts["text_encoder"]
        tokens = tokenize(parts["tokenizer"], CHAT.asked(captions)).to(encoder.device)
        # Not the whole model: behind its last layer it would say a probability for each word of its vocabulary.
        states = encoder.model(
            tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, use_cache=False
        ).hidden_states
        return {"text": torch.cat([states[layer] for layer in flux2.TEXT_LAYERS], dim=-1)}

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return super().num_tokens(parts, CHAT.asked(captions))

    def shift_by_size(self, config: Mapping[str, Any]) -> Shift:
        return shift

    def predict(self, parts: Parts, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        text, (height, width) = conditioning["text"], noisy.shape[2:]
        tokens = parts["transformer"](
            noisy.flatten(2).mT,
            encoder_hidden_states=text,
            timestep=times / NUM_TIMES,
            img_ids=_places(height, width, noisy.device),
            txt_ids=_order(text.shape[1], noisy.device),
        ).sample
        return tokens.mT.unflatten(2, (height, width))

    def pipeline(self, parts: Parts, base: Path, scheduler: str) -> Any:
        """Its `guidance_scale` is classifier-free guidance, away from the empty prompt; a distilled base is drawn without."""
        # Imported here: it pulls in seconds of code that a run without sample pictures never needs.
        from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline

        index = json.loads((base / "model_index.json").read_text())
        names = ("vae", "text_encoder", "tokenizer", "transformer")
        return without_progress_bar(
            Flux2KleinPipeline(
                **{name: parts[name] for name in names},
                scheduler=sampling_scheduler(base, scheduler),
                is_distilled=index.get("is_distilled") is True,
            )
        )


def shift(shape: tuple[int, ...]) -> float:
    """By a picture's tokens, as `compute_empirical_mu` shifts many steps, of which a training is one: its line for 200 of them.

    It is FLUX.1's: 0.5 at 256 tokens, 1.15 at 4096; kohya's musubi-tuner trains by it (--timestep_sampling flux2_shift).
    """
    return exp(0.00016927 * shape[-2] * shape[-1] + 0.45666666)


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """(tokens, 4) of a picture: time, row, column, place in a text."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in (height, width)), indexing="ij")
    nothing = torch.zeros_like(rows)
    return torch.stack([nothing, rows, columns, nothing], dim=-1).flatten(0, 1)


def _order(num_tokens: int, device: torch.device) -> Tensor:
    """(tokens, 4) of a text."""
    return F.pad(torch.arange(num_tokens, device=device)[:, None], (3, 0))


FAMILY: Family = Flux2()
