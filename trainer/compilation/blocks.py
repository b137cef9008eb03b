"""`training.compile: blocks`: torch.compile of each block that a denoiser repeats; what is compiled for one serves all that are alike.

Blocks and not the whole denoiser: so compiling takes as long as one of each kind does. Only training passes go by it: pictures and held-out
losses are of other shapes, and few.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from trainer.adapters.bank import ActiveSlots
from trainer.compilation.protocol import Predict
from trainer.compilation.shapes import KnownShapes, PassShape
from trainer.families.protocol import Conditioning
from trainer.typed_torch import compile_

log = logging.getLogger("lorafleet.pack")

Backend = str | Callable[..., Any]
# Of diffusers' denoisers, by the names of their classes; none lies within another.
REPEATED = frozenset(
    {
        "BasicTransformerBlock",
        "ChromaSingleTransformerBlock",
        "ChromaTransformerBlock",
        "Flux2SingleTransformerBlock",
        "Flux2TransformerBlock",
        "FluxSingleTransformerBlock",
        "FluxTransformerBlock",
        "JointTransformerBlock",
        "Krea2TransformerBlock",
        "QwenImageTransformerBlock",
        "ResnetBlock2D",
        "ZImageTransformerBlock",
    }
)


def repeated(denoiser: nn.Module) -> list[nn.Module]:
    """The blocks that are compiled."""
    return [module for module in denoiser.modules() if type(module).__name__ in REPEATED]


class CompiledBlocks:
    """See compilation.protocol.Compiled."""

    def __init__(self, denoiser: nn.Module, shapes: KnownShapes, backend: Backend = "inductor") -> None:
        self._blocks, self._shapes = repeated(denoiser), shapes
        self._is_on, self._works = False, True
        for block in self._blocks:
            untyped: Any = block
            untyped._compiled_call_impl = self._by_turns(untyped._call_impl, backend)  # what nn.Module.compile sets

    def _by_turns(self, eager: Callable[..., Any], backend: Backend) -> Callable[..., Any]:
        # Whole, and for sizes as they are: what is in pieces, or made for any size, would gain little, and nobody would hear of it.
        most = len(self._blocks) * self._shapes.most
        compiled = compile_(eager, fullgraph=True, dynamic=False, backend=backend, recompile_limit=most)

        def called(*inputs: Any, **named: Any) -> Any:
            return compiled(*inputs, **named) if self._is_on else eager(*inputs, **named)

        return called

    def __call__(
        self,
        predict: Predict,
        active: Sequence[ActiveSlots],
        noisy: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        captions: Sequence[str],
    ) -> Tensor:
        given = (active, noisy, times, conditioning, captions)
        if self._works and self._shapes.takes(PassShape.of(active, noisy, conditioning)):
            try:
                with self._being(is_on=True):
                    return predict(*given)
            except TorchDynamoException as error:  # nothing has changed: a pass only reads
                self._works = False
                log.warning("blocks cannot be compiled, and run eagerly from now on: %s: %s", type(error).__name__, error)
        return predict(*given)

    @contextmanager
    def _being(self, *, is_on: bool) -> Generator[None]:
        before, self._is_on = self._is_on, is_on
        try:
            yield
        finally:
            self._is_on = before

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        return partial(self._being, is_on=self._is_on)

    def let_go(self) -> None:
        self._shapes.forget()  # what is compiled knows no bank, and may serve the next

    def leave(self) -> None:
        for block in self._blocks:
            vars(block).pop("_compiled_call_impl", None)
        torch.compiler.reset()  # else the next run on these workers would have what is left of the limits
