"""`training.compile: graph`: a whole pass, forward and backward, as one CUDA graph for each shape: one launch in place of thousands.

A graph replays what was launched while it was recorded, on the same addresses. So a pass's tensors are copied into those that it was
recorded with, and adapters lie where they lay: an update changes them in place, and it is not part of a graph, nor is the loss. What of the
pass is the host's, which slots have which rows, is the same for all passes of a shape; which slots they are is a tensor like others.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.bank import ActiveSlots
from trainer.compilation.protocol import Predict
from trainer.compilation.shapes import KnownShapes, PassShape
from trainer.families.protocol import Conditioning

log = logging.getLogger("lorafleet.pack")

Replay = Callable[..., Tensor]  # of the tensors that it was recorded with, in their order
Record = Callable[[Callable[..., Tensor], tuple[Tensor, ...]], Replay]


def recorder() -> Record:
    """torch's own. Graphs of one recorder share memory, which they may: a pass's backward is over before the next one begins."""
    untyped: Any = torch.cuda
    # `thread_local`: another thread pins memory for the next step meanwhile (pack.ahead), which else would end the recording.
    how = {"allow_unused_input": True, "capture_error_mode": "thread_local"}
    return partial(untyped.make_graphed_callables, pool=untyped.graph_pool_handle(), **how)


class PassGraphs:
    """See compilation.protocol.Compiled."""

    def __init__(self, shapes: KnownShapes, new_recorder: Callable[[], Record] = recorder) -> None:
        self._shapes, self._new_recorder = shapes, new_recorder
        self._record: Record | None = None
        self._replays: dict[PassShape, Replay] = {}
        self._works = True

    def __call__(
        self,
        predict: Predict,
        active: Sequence[ActiveSlots],
        noisy: Tensor,
        times: Tensor,
        conditioning: Conditioning,
        captions: Sequence[str],
    ) -> Tensor:
        shape = PassShape.of(active, noisy, conditioning)
        if not (self._works and self._shapes.takes(shape)):
            return predict(active, noisy, times, conditioning, captions)
        given = (noisy, times, *conditioning.values(), *(_index(each) for each in active))
        if shape not in self._replays:
            try:
                self._replays[shape] = self._recorded(predict, active, tuple(conditioning), given)
            except RuntimeError as error:
                self._works = False
                self.let_go()
                log.warning("a pass cannot be recorded, and all run eagerly from now on: %s: %s", type(error).__name__, error)
                return predict(active, noisy, times, conditioning, captions)
        return self._replays[shape](*given, *(_OwnGradient.apply(each.bank.flat) for each in active))  # pyright: ignore[reportUnknownMemberType]

    def _recorded(self, predict: Predict, active: Sequence[ActiveSlots], names: Sequence[str], given: Sequence[Tensor]) -> Replay:
        self._record = self._record or self._new_recorder()

        def run(noisy: Tensor, times: Tensor, *others: Tensor) -> Tensor:
            conditioning, indices = dict(zip(names, others, strict=False)), others[len(names) :]
            theirs = [replace(each, index=index, by_index=True) for each, index in zip(active, indices, strict=False)]
            return predict(theirs, noisy, times, conditioning, ())

        return self._record(run, (*(each.clone() for each in given), *(each.bank.flat for each in active)))

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        return nullcontext  # what is recorded is not computed anew

    def let_go(self) -> None:
        """What was recorded are the banks' addresses."""
        self._replays.clear()
        self._shapes.forget()
        self._record = None

    def leave(self) -> None:
        self.let_go()


def _index(active: ActiveSlots) -> Tensor:
    if active.index is None:
        raise RuntimeError("these slots are not on the device, from which a graph would read them")
    return active.index


class _OwnGradient(torch.autograd.Function):
    """A parameter whose gradient is the caller's own: a graph gives one in memory that its next replay writes anew."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor) -> Tensor:
        return flat.view_as(flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clone()
