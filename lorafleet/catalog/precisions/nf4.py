"""Weights of four bits at the quantiles of a normal distribution, scaled by blocks, whose scales are quantised too
(QLoRA: Dettmers et al. 2023).
"""

from math import ceil

from lorafleet.catalog.method import Shape
from lorafleet.catalog.precision import Precision

BLOCK = 64  # numbers with a scale of one byte
SCALES_BLOCK = 256  # scales with a scale of four bytes


def _bytes(shape: Shape) -> int:
    outputs, inputs = shape
    scales = ceil(outputs * inputs / BLOCK)
    return ceil(outputs * inputs / 2) + scales + 4 * ceil(scales / SCALES_BLOCK)


FACTS = Precision(name="nf4", title="NF4 weights (QLoRA: Dettmers et al. 2023)", computes="bf16", quantised_bytes=_bytes, is_recorded=False)
