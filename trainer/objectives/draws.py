"""Keyed draws: what is random of a training example, the same in any batch, on any worker. No engine, no store."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from trainer.keyed import Key, Purpose
from trainer.objectives.protocol import Normals, Objective
from trainer.typed_torch import from_array


@dataclass(frozen=True)
class Draw:
    """Names one training example: the picture, the step, and which of the step's repeats of that picture it is."""

    step: int
    sample: int
    repeat: int

    @property
    def indices(self) -> tuple[int, int, int]:
        return self.step, self.sample, self.repeat


@dataclass(frozen=True)
class Noised:
    """Latents of some examples as an objective noises them; on the CPU."""

    noisy: Tensor  # shaped as the latents, (rows, ...)
    times: Tensor  # (rows,)
    target: Tensor  # shaped as noisy
    weight: Tensor  # (rows,)
    scales: Tensor  # (rows,), as losses take them


def draws(batch: Sequence[int], step: int) -> list[Draw]:
    """The draws of a step's whole global batch; a small data set repeats pictures in it."""
    seen: Counter[int] = Counter()
    found: list[Draw] = []
    for sample in batch:
        found.append(Draw(step, sample, seen[sample]))
        seen[sample] += 1
    return found


def sampled(mode: Tensor, deviation: Tensor, examples: Sequence[Draw], key: Key) -> Tensor:
    """Latents drawn from the autoencoder's posterior anew for each example (Rombach et al. 2022, appendix G); both (rows, ...)."""
    return mode + deviation * _normals(key, examples)(Purpose.LATENTS, tuple(mode.shape[1:]))


def noised(latents: Tensor, examples: Sequence[Draw], key: Key, objective: Objective) -> Noised:
    """Noises the latents, (rows, ...), each by draws of its own."""
    shape = tuple(latents.shape[1:])
    noise = objective.noise(_normals(key, examples), shape)
    times = objective.times([key.generator(Purpose.TIMESTEP, *each.indices) for each in examples], shape)
    return Noised(
        noisy=objective.noisy(latents, noise.added, times),
        times=times,
        target=objective.target(latents, noise.told, times),
        weight=objective.weight(times),
        scales=objective.scales(times),
    )


def drops_caption(key: Key, example: Draw, share: float) -> bool:
    return bool(share) and key.generator(Purpose.CAPTION_DROPOUT, *example.indices).random() < share


def dropout_seed(key: Key, example: Draw) -> int:
    return int(key.generator(Purpose.ADAPTER_DROPOUT, *example.indices).integers(2**62))


def _normals(key: Key, examples: Sequence[Draw]) -> Normals:
    def drawn(purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
        rows = [key.generator(purpose, *each.indices).standard_normal(shape, dtype=np.float32) for each in examples]
        return from_array(np.stack(rows))

    return drawn
