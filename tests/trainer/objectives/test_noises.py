"""Noises: independent of their batch, as spread as published, and what is perturbed is not what is to be told."""

from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lorafleet.spec import ObjectiveSpec, OptimizationSpec
from trainer.keyed import Key, Purpose
from trainer.objectives.noises import Noises
from trainer.objectives.protocol import Normals

SHAPE = (4, 16, 24)


def normals(rows: list[int]) -> Normals:
    def drawn(purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
        found = [Key(1, "style").generator(purpose, row).standard_normal(shape, dtype=np.float32) for row in rows]
        return torch.from_numpy(np.stack(found))

    return drawn


@pytest.mark.parametrize("options", [{"offset": 0.1}, {"pyramid_discount": 0.5}, {"perturbation": 0.2}])
def test_a_row_is_the_same_alone_and_in_any_batch(options: dict[str, Any]):
    noises = Noises(**options)
    together, alone = noises.drawn(normals([3, 1]), SHAPE), noises.drawn(normals([1]), SHAPE)
    assert torch.equal(together.told[1:], alone.told)
    assert torch.equal(together.added[1:], alone.added)


def test_pyramid_noise_has_the_spread_of_plain_noise_and_more_of_it_on_coarse_grids():
    plain, pyramid = (Noises(pyramid_discount=discount).drawn(normals(list(range(64))), SHAPE).told for discount in (0.0, 0.8))
    assert torch.allclose(pyramid.flatten(1).std(dim=1), torch.ones(64), atol=1e-5)
    coarse = [torch.nn.functional.avg_pool2d(noise, 8).std().item() for noise in (plain, pyramid)]
    assert coarse[0] == pytest.approx(1 / 8, rel=0.1)
    assert coarse[1] > 3 * coarse[0]


def test_every_grid_of_pyramid_noise_is_a_draw_of_its_own():
    asked: list[int] = []

    def counted(purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
        if purpose == Purpose.PYRAMID_NOISE:
            asked.append(prod(shape))
        return normals([0])(purpose, shape)

    Noises(pyramid_discount=0.5).drawn(counted, SHAPE)
    assert asked == [4 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 1)]


def test_perturbed_input_has_more_noise_than_is_to_be_told():
    """Algorithm 1 of Ning et al. 2023: x_t of noise + 0.1 xi, the target noise."""
    noise = Noises(perturbation=0.1).drawn(normals([2]), SHAPE)
    assert torch.equal(noise.told, normals([2])(Purpose.NOISE, SHAPE))
    assert torch.allclose(noise.added, noise.told + 0.1 * normals([2])(Purpose.INPUT_PERTURBATION, SHAPE))


def test_plain_noise_is_told_as_it_is_added():
    noise = Noises.of(ObjectiveSpec(), OptimizationSpec()).drawn(normals([2]), SHAPE)
    assert noise.told is noise.added
