"""The seam of a quantisation: makes a frozen linear layer small. A new one is one file beside int8.py, and its facts."""

from typing import Protocol

from torch import nn


class Quantisation(Protocol):
    """Stateless."""

    def __call__(self, layer: nn.Linear) -> nn.Linear:
        """The layer with its weight quantised, on the CPU; through it gradients reach its input. `layer` is in bf16, and is used up."""
        ...
