"""Passes by graphs, beside eager ones: with torch's recorder where there is a GPU, else with one that replays as a graph would.

The stand-in runs what it recorded once more on the tensors that it was recorded with, and gives gradients in memory of its own, which its
next replay writes anew: that is all of a graph that a pass can tell.
"""

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorafleet.spec import AdapterSpec
from tests.trainer.adapters.test_adapters import model_of
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind
from trainer.compilation.graphs import PassGraphs, Record, recorder
from trainer.compilation.shapes import KnownShapes

WIDTH, CAPACITY = 16, 4
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs: needs a GPU")
needs_gpu = pytest.param("cuda", marks=gpu)


class Replays:
    """Counts what was recorded."""

    def __init__(self) -> None:
        self.num_recorded = 0

    def __call__(self, run: Callable[..., Tensor], kept: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        self.num_recorded += 1
        trained = [each for each in kept if each.requires_grad]
        gradients = [torch.empty_like(each) for each in trained]

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *given: Tensor) -> Tensor:
                for place, each in zip(kept, given, strict=True):
                    if place.data_ptr() != each.data_ptr():
                        place.copy_(each)
                with torch.enable_grad():
                    ctx.out = run(*kept)
                return ctx.out.detach()

            @staticmethod
            def backward(ctx: Any, *of_out: Tensor) -> tuple[Tensor | None, ...]:
                for place, each in zip(gradients, torch.autograd.grad(ctx.out, trained, of_out), strict=True):
                    place.copy_(each)
                found = iter(gradients)
                return tuple(next(found).detach() if each.requires_grad else None for each in kept)

        return lambda *given: Replay.apply(*given)


class Passes:
    """A model with two banks, and passes of it: of these slots of each."""

    def __init__(self, device: str, compiled: PassGraphs | None) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.model: Any = model_of(nn.Sequential(*(nn.Linear(WIDTH, WIDTH).requires_grad_(False) for _ in range(2))))
        self.model.compiled = compiled
        self.banks: list[Bank] = [self._bank(2), self._bank(3)]
        self.model.to(self.device)

    def _bank(self, rank: int) -> Bank:
        asked = AdapterSpec(rank=rank, target_modules=("0", "1"))
        bank = self.model.add_bank(Kind.of(asked, "adamw"), CAPACITY, batch_invariant=False)
        for _ in range(CAPACITY):
            bank.add_style(0.1 * torch.randn(bank.layout.size), 0.5)
        return bank

    def predict(self, active: Sequence[ActiveSlots], noisy: Tensor, times: Tensor, conditioning: Any, captions: Sequence[str]) -> Tensor:
        with self.model.serving(active):
            return self.model.get_submodule("unet")(noisy + times[:, None, None] + conditioning["text"])

    def step(self, slots: Sequence[Sequence[int]], seed: int, length: int = 4) -> tuple[Tensor, list[Tensor]]:
        """A pass's losses, and the gradients once they were added to; then an update in place, as optimizers make."""
        if seed % 2 == 0:  # two passes of a step: gradients begin anew, then add up
            for bank in self.banks:
                bank.flat.grad = None
        draw = torch.Generator().manual_seed(seed)
        rows = 2 * sum(map(len, slots))
        noisy, text = (torch.randn(rows, length, WIDTH, generator=draw).to(self.device) for _ in range(2))
        given = (self._active(slots), noisy, torch.rand(rows, generator=draw).to(self.device), {"text": text}, ())
        out = self.predict(*given) if self.model.compiled is None else self.model.compiled(self.predict, *given)
        losses = out.square().flatten(1).mean(1)
        losses.sum().backward()
        found = [bank.flat.grad.clone() for bank in self.banks if bank.flat.grad is not None]
        with torch.no_grad():
            for bank in self.banks:
                if bank.flat.grad is not None:
                    bank.flat.sub_(0.01 * bank.flat.grad)
        return losses.detach().cpu(), [each.cpu() for each in found]

    def _active(self, slots: Sequence[Sequence[int]]) -> list[ActiveSlots]:
        active: list[ActiveSlots] = []
        start = 0
        for bank, its in zip(self.banks, slots, strict=True):
            if its:
                active.append(ActiveSlots(bank, its, start, 2, index=torch.tensor(its, device=self.device)))
                start += 2 * len(its)
        return active


def graphs(device: str, new_recorder: Callable[[], Record], most: int = 8) -> PassGraphs:
    return PassGraphs(KnownShapes(most), recorder if device == "cuda" else new_recorder)


# Of two banks; slots in a row and apart, one or both, the same shapes again with others, a further length.
STEPS: list[tuple[list[list[int]], int]] = [
    ([[0, 1], [2]], 4),
    ([[0, 1], [2]], 4),
    ([[1, 3], [0]], 4),
    ([[2, 3], []], 4),
    ([[0, 1, 2, 3], [1]], 4),
    ([[0, 2], []], 4),
    ([[0, 1, 2, 3], [3]], 4),
    ([[1, 2], [3]], 6),
    ([[0, 3], [1]], 6),
    ([[1, 2], [0]], 4),
    ([[0, 1], [3]], 4),
    ([[2, 3], [0]], 4),
]


@pytest.mark.parametrize("device", ["cpu", needs_gpu])
def test_by_graphs_passes_give_the_losses_and_gradients_of_eager_ones(device: str):
    """Gradients add up over passes, and what is updated in place is what the next pass sees."""
    replays = Replays()
    eager, by_graphs = Passes(device, None), Passes(device, graphs(device, lambda: replays))
    for seed, (slots, length) in enumerate(STEPS):
        ours, theirs = by_graphs.step(slots, seed, length), eager.step(slots, seed, length)
        torch.testing.assert_close(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1])
    assert replays.num_recorded == (0 if device == "cuda" else 4), "one for each shape that came twice"


def test_banks_that_go_take_their_graphs_with_them():
    replays = Replays()
    passes = Passes("cpu", graphs("cpu", lambda: replays))
    for seed in range(3):
        passes.step([[0, 1], [2]], seed)
    old, passes.banks = weakref.ref(passes.banks[0]), []
    passes.model.strip()
    gc.collect()
    assert old() is None, "a graph would keep it, and the memory that it was recorded in"
    passes.banks = [passes._bank(2), passes._bank(3)]
    eager = Passes("cpu", None)
    for mine, its in zip(passes.banks, eager.banks, strict=True):
        its.flat.data.copy_(mine.flat.data)
    for seed in range(3):
        torch.testing.assert_close(passes.step([[0, 1], [2]], seed), eager.step([[0, 1], [2]], seed))
    assert replays.num_recorded == 2


def test_what_cannot_be_recorded_runs_eagerly_and_that_is_said_once(caplog: pytest.LogCaptureFixture):
    def refuses(run: Callable[..., Tensor], kept: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    eager, by_graphs = Passes("cpu", None), Passes("cpu", PassGraphs(KnownShapes(), lambda: refuses))
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            torch.testing.assert_close(by_graphs.step([[0, 1], [2]], seed), eager.step([[0, 1], [2]], seed))
    assert [message for message in caplog.messages if "not permitted" in message] == caplog.messages
    assert len(caplog.messages) == 1
