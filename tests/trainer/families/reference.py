"""The training of flow transformers written a second time, with diffusers' own pipelines, PEFT and torch: one style, one loop.

What is generic of it is tests.trainer.sdxl.reference. A family's row gives what it computes with: pipeline, texts, prediction, shift.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.trainer.sdxl.reference import HELD_OUT_TIMES, Example, Reference
from trainer.keyed import Purpose
from trainer.prepare.style import PreparedStyle

Texts = Mapping[str, Any]  # whatever the row's `predict` takes of captions


class FlowReference(Reference, ABC):
    """One style on one base of a flow family."""

    pipeline_class: Any

    def __init__(self, base: Path, style: PreparedStyle) -> None:
        self.style, self.dtype = style, torch.float32
        self.pipeline = self.pipeline_class.from_pretrained(base, **dict.fromkeys(style.base.absent))
        self.latents: dict[int, Tensor] = {}
        self.adapted = {"transformer": self.pipeline.transformer}
        if style.spec.adapter.text_encoder:
            self.adapted |= {part.name: getattr(self.pipeline, part.name) for part in style.family.text_encoders if part.target_modules}
        for part in (self.pipeline.transformer, self.pipeline.vae, *self.text_encoders()):
            part.eval().requires_grad_(False)
        self._put_adapters_on()

    # A family's own

    def text_encoders(self) -> list[Any]:
        return [part for name, part in self.pipeline.components.items() if name.startswith("text_encoder") and part is not None]

    @abstractmethod
    def texts(self, captions: Sequence[str]) -> Texts:
        """As the pipeline encodes prompts."""

    @abstractmethod
    def velocity(self, noisy: Tensor, sigmas: Tensor, texts: Texts) -> Tensor:
        """The way from latents to noise, shaped as `noisy` (rows, channels, height, width); `sigmas` (rows,)."""

    def shift(self, height: int, width: int) -> float:
        """Of the times of pictures of so many latents."""
        return self.pipeline.scheduler.config.shift

    def share_of_noise(self, generator: np.random.Generator) -> float:
        """Drawn between 0 and 1, before it is shifted."""
        return generator.random()

    def latents_of(self, pixels: Tensor) -> Tensor:
        config = self.pipeline.vae.config
        return (self.pipeline.vae.encode(pixels).latent_dist.mode() - config.shift_factor) * config.scaling_factor

    # What is the same for all

    def loss(self, examples: Sequence[Example]) -> Tensor:
        latents = torch.cat([self.latent(each.sample) for each in examples])
        noise = self._normals(Purpose.NOISE, examples, tuple(latents.shape[1:]))
        shift = self.shift(*latents.shape[-2:])
        sigmas = [self._sigma(each, shift) for each in examples]
        captions = ["" if self._drops_caption(each) else self.style.captions[each.sample] for each in examples]
        return self._flow_errors(latents, noise, torch.tensor(sigmas), captions).mean()

    def held_out_loss(self) -> list[float]:
        errors: list[float] = []
        times: list[Any] = [(number + 0.5) / HELD_OUT_TIMES * 1000 for number in range(HELD_OUT_TIMES)]
        for sample in self.style.held_out:
            latents = self.latent(sample).expand(HELD_OUT_TIMES, -1, -1, -1)
            generators = [self.style.key.generator(Purpose.HELD_OUT_NOISE, sample, time) for time in times]
            drawn = np.stack([generator.standard_normal(tuple(latents.shape[1:]), np.float32) for generator in generators])
            sigmas, captions = torch.tensor(times) / 1000, [self.style.captions[sample]] * HELD_OUT_TIMES
            with torch.no_grad():
                errors += self._flow_errors(latents, torch.from_numpy(drawn), sigmas, captions).tolist()
        return [sum(errors) / len(errors)] if errors else []

    def latent(self, sample: int) -> Tensor:
        """(1, channels, height, width)."""
        if sample not in self.latents:
            pixels = torch.from_numpy(self._fitted(sample)).permute(2, 0, 1)[None] / 127.5 - 1
            with torch.no_grad():
                self.latents[sample] = self.latents_of(pixels)
        return self.latents[sample]

    def _sigma(self, example: Example, shift: float) -> float:
        drawn = max(self.share_of_noise(self.style.key.generator(Purpose.TIMESTEP, *example.indices)), 1e-3)
        return shift / (shift + (1 / drawn - 1))

    def _flow_errors(self, latents: Tensor, noise: Tensor, sigmas: Tensor, captions: Sequence[str]) -> Tensor:
        share = sigmas[:, None, None, None]
        predicted = self.velocity((1 - share) * latents + share * noise, sigmas, self.texts(captions))
        return (predicted - (noise - latents)).pow(2).mean(dim=(1, 2, 3))


def sigmoid_of_normal(generator: np.random.Generator) -> float:
    return 1 / (1 + exp(-generator.standard_normal()))
