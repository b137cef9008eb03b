"""Draws pictures with a base that stays loaded. Rows of one pass may have different adapters; what is switched is a few tensors.

A pass has a fixed number of rows where bits are to be the same: kernels of CPUs compute a row in the same way in every batch of one size,
whatever the other rows are (bench/invariance.py), so a lone picture is drawn beside copies of itself. A picture's noise is drawn by
`torch.Generator("cpu").manual_seed(seed)`, as anyone can draw it again with diffusers' pipeline.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import nn

from lorafleet.catalog import Family
from lorafleet.generation_schedulers import Sampling
from lorafleet.spec import ValidationSpec
from trainer.adapters.layout import Layer
from trainer.autocast import autocast
from trainer.frozen_base import FrozenBase
from trainer.generation.places import Places
from trainer.generation.stacks import Uses, stacked

SMALL = 64 * 64  # pixels of a picture of which many fill a pass
MOST_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class How:
    """What the pictures of a pass have in common. `scheduler`: None is the base's own."""

    width: int
    height: int
    num_inference_steps: int = 25
    guidance_scale: float = 5.0
    scheduler: Sampling | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """`uses`: its adapters, with their weights."""

    prompt: str
    seed: int
    negative_prompt: str = ""
    uses: Uses = ()


def rows_at_once(width: int, height: int, family: Family) -> int:
    """Of pictures of this size. Small ones are faster side by side, large ones fill the processor alone."""
    if family.lays_rows_end_to_end:
        return 1
    return max(1, min(MOST_ROWS, MOST_ROWS * SMALL // (width * height)))


class Sampler:
    """One base, warm, with whatever adapters its pictures name."""

    def __init__(self, base: FrozenBase) -> None:
        self.base = base
        base.load(trains_text=True)  # they stay: prompts come again
        self._pipeline: Any = base.pipeline().to(base.device)
        self._schedulers: dict[str, Any] = {"": self._pipeline.scheduler}
        facts = self.family
        parts = {part.name: getattr(self._pipeline, part.name, None) for part in (facts.denoiser, *facts.text_encoders)}
        self._places = Places({name: part for name, part in parts.items() if isinstance(part, nn.Module)})

    @property
    def family(self) -> Family:
        return self.base.family.facts

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Those that adapters can sit on, by canonical path."""
        return self._places.layers

    @property
    def own_scheduler(self) -> str:
        """The class of the base's scheduler."""
        return type(self._schedulers[""]).__name__

    @property
    def takes_negative_prompts(self) -> bool:
        """Not where a base was distilled to draw with guidance: then there is nothing to be led away from."""
        given = inspect.signature(type(self._pipeline).__call__).parameters
        return "negative_prompt" in given and ("true_cfg_scale" not in given or "true_cfg_scale" in self._guidance(1.0))

    def draw(self, pictures: Sequence[Picture], how: How, *, num_rows: int | None = None) -> list[Image.Image]:
        """One pass. `num_rows`: how many rows it has at least, the last picture's again and again; bits are the same for the same."""
        rows = [*pictures, *[pictures[-1]] * ((num_rows or 0) - len(pictures))]
        self._pipeline.scheduler = self._scheduler(how.scheduler)
        with (
            torch.no_grad(),
            autocast(self.base.device.type, self.base.precision.computes),
            self._places.with_stacks(stacked([row.uses for row in rows], self.base.device)),
        ):
            return self._pipeline(**self._given(rows, how)).images[: len(pictures)]

    def _given(self, rows: Sequence[Picture], how: How) -> dict[str, Any]:
        negative = [row.negative_prompt for row in rows]
        return {
            "prompt": [row.prompt for row in rows],
            # Without one the pipeline has its own: of SDXL zeros, which are not what an empty text is encoded as.
            **({"negative_prompt": negative} if any(negative) else {}),
            "width": how.width,
            "height": how.height,
            "generator": [torch.Generator("cpu").manual_seed(row.seed) for row in rows],
            "num_inference_steps": how.num_inference_steps,
            **self._guidance(how.guidance_scale),
        }

    def _guidance(self, scale: float) -> Mapping[str, Any]:
        return self.base.family.drawing(self.base.parts, ValidationSpec(guidance_scale=scale))

    def _scheduler(self, sampling: Sampling | None) -> Any:
        title = sampling.title if sampling else ""
        if title not in self._schedulers and sampling:
            made: Any = getattr(diffusers, sampling.scheduler)
            self._schedulers[title] = made.from_config(self._schedulers[""].config, **sampling.settings)
        return self._schedulers[title]
