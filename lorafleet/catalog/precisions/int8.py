"""Weights as whole numbers of eight bits, with a scale for each output (LLM.int8(): Dettmers et al. 2022, of weights alone)."""

from lorafleet.catalog.method import Shape
from lorafleet.catalog.precision import Precision


def _bytes(shape: Shape) -> int:
    outputs, inputs = shape
    return outputs * inputs + 2 * outputs  # a scale in bf16


FACTS = Precision(name="int8", title="int8 weights (Dettmers et al. 2022)", computes="bf16", quantised_bytes=_bytes)
