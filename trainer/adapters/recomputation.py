"""Recomputes the blocks of a denoiser in the backward pass, instead of keeping what they computed (Chen et al. 2016).

Diffusers' models say themselves which blocks they repeat. What is kept of each is its input. A block is computed for the second time
when its forward pass is long over: it must see the same adapters on the same rows. All that is drawn in it has a key (`dropout`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from trainer.typed_torch import checkpoint

# What the layers are to compute with whenever blocks that are at work now are computed again.
SameAgain = Callable[[], AbstractContextManager[None]]


def recompute(denoiser: nn.Module, same_again: Callable[[], SameAgain]) -> None:
    """From now on blocks are recomputed; `same_again` is asked in the forward pass. Of denoisers that can: their facts say."""

    def recomputed(block: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        again = same_again()
        return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), again()), **named)

    turn_on: Any = denoiser.enable_gradient_checkpointing
    turn_on(recomputed)


def keep(denoiser: nn.Module) -> None:
    """The opposite: what blocks compute is kept for the backward pass."""
    turn_off: Any = getattr(denoiser, "disable_gradient_checkpointing", None)
    if turn_off is not None:
        turn_off()
