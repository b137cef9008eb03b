"""The facts of a precision: how a frozen model is held, and what its passes are computed in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from lorafleet.catalog.method import Shape


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A precision of the denoiser, or of text encoders as large. Adapters are fp32 at all of them."""

    name: str
    title: str  # with its paper
    computes: Literal["fp32", "bf16", "fp16"]  # and what is not quantised is held so
    quantised_bytes: Callable[[Shape], int] | None = None  # of a layer's weight, (out, in); None: nothing is quantised
    is_recorded: bool = True  # whether CUDA graphs are known to hold what its layers launch

    @property
    def encodes(self) -> Literal["fp32", "bf16"]:
        """What text encoders as large as such a denoiser are held and compute in as a rule: in fp16 T5 and Qwen overflow."""
        return "fp32" if self.computes == "fp32" else "bf16"

    @property
    def number_bytes(self) -> int:
        return 4 if self.computes == "fp32" else 2

    def held_bytes(self, num_params: int, layers: Mapping[str, Shape]) -> int:
        """Of a model with that many numbers, of which these layers' weights are some."""
        if self.quantised_bytes is None:
            return num_params * self.number_bytes
        quantised = [shape for path, shape in layers.items() if is_quantised(path, shape)]
        whole = num_params - sum(map(prod, quantised))
        return whole * self.number_bytes + sum(map(self.quantised_bytes, quantised))


def is_quantised(path: str, shape: Shape) -> bool:
    """Whether a layer is: a linear one of a repeated block, of which a list has several (`blocks.3.attn.to_q`).

    What stands alone, the first and the last layers and the embeddings of times, is small, and errors there are in every number after it.
    """
    return len(shape) == 2 and any(name.isdigit() for name in path.split(".")[:-1])
