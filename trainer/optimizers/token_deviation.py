"""Brings the vectors of new tokens back to the deviation of the base's own after a step, where a spec asks for it.

As `retract_embeddings` of diffusers' train_dreambooth_lora_sdxl_advanced.py: times (base's deviation / theirs)^0.1, over all new ones of a
text encoder.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from trainer.adapters.layout import VECTORS, Layout
from trainer.optimizers.protocol import Row

SHARE = 0.1
_LEAST = 1e-12  # deviation: vectors of zeros stay such


class Place(NamedTuple):
    """Where a text encoder's new vectors lie in a row, and the deviation of its own."""

    start: int
    size: int
    deviation: float


def places(where: Layout, deviations: Mapping[str, float]) -> tuple[Place, ...]:
    """`deviations`: of embeddings, by canonical path."""
    return tuple(Place(piece.offset, piece.size, deviations[piece.module]) for piece in where.pieces if piece.role == VECTORS)


def retract(row: Row, vectors: tuple[Place, ...]) -> None:
    """As they were where the gradient was not finite."""
    if not row.update.keeps_deviation:
        return
    for place in vectors:
        its = row.weights[place.start : place.start + place.size]
        factor = (place.deviation / its.std().clamp(min=_LEAST)) ** SHARE
        its.mul_(torch.where(row.clipping.is_finite, factor, torch.ones_like(factor)))
