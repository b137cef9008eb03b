"""The seam of a training objective: what is drawn for a row, what the denoiser sees of it, and what it is to predict.

Training and the held-out loss go through the same one. Times are in whatever unit the family's denoiser takes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from trainer.keyed import Purpose
from trainer.losses.protocol import Loss

# (what for, shape of a row) -> independent standard normals, (rows, *shape), the same for the same rows in any batch.
Normals = Callable[[Purpose, tuple[int, ...]], Tensor]


class Noise(NamedTuple):
    """Noise of some rows, each (rows, ...)."""

    told: Tensor  # what the denoiser is to tell
    added: Tensor  # what the latents get: the same, unless an objective perturbs them


class Objective(Protocol):
    """One style's objective. Every tensor is on the CPU; latents and what is shaped like them are (rows, ...)."""

    @property
    def loss(self) -> Loss: ...

    def times(self, generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> Tensor:
        """A time for each row, drawn from its own generator: (rows,). `shape`: of a row's latents; large ones may need more noise."""
        ...

    def held_out_times(self, number: int) -> list[float]:
        """This many fixed times, spread evenly over the schedule."""
        ...

    def noise(self, normals: Normals, shape: tuple[int, ...]) -> Noise:
        """The noise of rows of that shape."""
        ...

    def noisy(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the denoiser sees."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What it is to predict."""
        ...

    def weight(self, times: Tensor) -> Tensor:
        """Of each row's loss in training, (rows,)."""
        ...

    def scales(self, times: Tensor) -> Tensor:
        """What its loss takes as `scales` at these times, (rows,)."""
        ...
