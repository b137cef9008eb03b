"""diffusers' Chroma transformer with blocks that see the mask also when they are recomputed: where it recomputes a block of one stream,
the library's forward pass leaves it out, and trains something else."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
from torch import nn


class MaskedChroma(ChromaTransformer2DModel):
    """What is recomputed is a block's own forward pass, called as ever: `gradient_checkpointing` of the whole stays off."""

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        self.disable_gradient_checkpointing()
        if gradient_checkpointing_func is None:
            raise ValueError("how blocks are recomputed is the trainer's to say")
        for block in self._blocks():
            block.forward = partial(gradient_checkpointing_func, block.forward)

    def disable_gradient_checkpointing(self) -> None:
        for block in self._blocks():
            vars(block).pop("forward", None)

    def _blocks(self) -> Iterator[nn.Module]:
        yield from self.transformer_blocks
        yield from self.single_transformer_blocks
