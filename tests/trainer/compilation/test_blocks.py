"""Blocks by torch.compile, beside eager ones: alike in losses and gradients, one graph for all, for training passes alone."""

import logging
from collections.abc import Sequence
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from lorafleet.catalog import FAMILIES
from lorafleet.spec import AdapterSpec
from tests.trainer.adapters.test_adapters import model_of
from trainer.adapters import recomputation
from trainer.adapters.bank import ActiveSlots
from trainer.adapters.layout import Kind
from trainer.compilation.blocks import REPEATED, CompiledBlocks
from trainer.compilation.shapes import KnownShapes
from trainer.quantisation.int8 import int8
from trainer.quantisation.nf4 import nf4

WIDTH, NUM_BLOCKS = 16, 3
# Anything may stand for diffusers' blocks, which are known by the names of their classes.
Backend = Any
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="compiles for a GPU: needs one")


class ResnetBlock2D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.breaks = False

    def forward(self, x: Tensor) -> Tensor:
        if self.breaks:
            torch._dynamo.graph_break()
        return x + self.to_v(torch.tanh(self.to_q(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResnetBlock2D() for _ in range(NUM_BLOCKS))
        self.compute: Any = None  # what blocks are computed by: a checkpoint

    def enable_gradient_checkpointing(self, compute: Any) -> None:
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) if self.compute is None else self.compute(block, x)
        return x


class Trained:
    """A model of two banks of other methods, one slot of each at work."""

    def __init__(self, backend: Backend = None, device: str = "cpu", *, recomputes: bool = False, held: Any = None) -> None:
        """`held`: how layers are quantised."""
        torch.manual_seed(0)
        self.net = Net().requires_grad_(False)
        for block in self.net.blocks if held else ():
            block.to_q, block.to_v = held(block.to_q), held(block.to_v)
        self.model: Any = model_of(self.net)
        self.banks = [self._bank("lora", 3), self._bank("lokr" if held else "dora", 1)]
        if recomputes:
            recomputation.recompute(self.net, self.model._same_again)
        self.model.to(device)
        if backend is not None:
            torch.compiler.reset()
            self.model.compiled = CompiledBlocks(self.net, KnownShapes(), backend)

    def _bank(self, method: str, num_styles: int) -> Any:
        asked = AdapterSpec(method=method, rank=2, target_modules=("to_q", "to_v"))  # pyright: ignore[reportArgumentType]
        bank = self.model.add_bank(Kind.of(asked, "adamw"), num_styles, batch_invariant=True)
        for _ in range(num_styles):
            bank.add_style(0.1 * torch.randn(bank.layout.size) + 0.5, 0.5)
        return bank

    def predict(self, active: Sequence[ActiveSlots], noisy: Tensor, times: Tensor, conditioning: Any, captions: Sequence[str]) -> Tensor:
        with self.model.serving(active):
            return self.net(noisy)

    def step(self, seed: int, length: int = 8) -> list[Tensor]:
        """Losses and gradients of a pass: two slots of the one bank, and one of the other, which is paired in the layers."""
        device = self.banks[0].flat.device
        for bank in self.banks:
            bank.flat.grad = None
        x = torch.randn(8, length, WIDTH, generator=torch.Generator().manual_seed(seed)).to(device).requires_grad_()
        active = [ActiveSlots(self.banks[0], [0, 1], 0, 2), ActiveSlots(self.banks[1], [0, 1], 4, 2, is_paired=True)]
        given = (active, x, torch.zeros(8), {}, ())
        out = self.predict(*given) if self.model.compiled is None else self.model.compiled(self.predict, *given)
        losses = out.square().flatten(1).mean(1)
        losses.sum().backward()
        return [losses.detach(), *(bank.flat.grad for bank in self.banks)]


@pytest.mark.parametrize("recomputes", [False, True])
def test_compiled_blocks_give_the_losses_and_gradients_of_eager_ones_by_one_graph_for_all(recomputes: bool):
    counted = CompileCounterWithBackend("aot_eager")
    eager, compiled = Trained(), Trained(counted, recomputes=recomputes)
    for seed, length in ((0, 8), (1, 8), (2, 8), (3, 4), (4, 4), (5, 8)):
        torch.testing.assert_close(compiled.step(seed, length), eager.step(seed, length))
    assert counted.frame_count == 2, "one for each length that came again"


@pytest.mark.parametrize("held", [int8, nf4])
def test_quantised_blocks_are_compiled_whole(held: Any):
    counted = CompileCounterWithBackend("aot_eager")
    eager, compiled = Trained(held=held), Trained(counted, held=held)
    for seed in range(2):
        torch.testing.assert_close(compiled.step(seed), eager.step(seed))
    assert counted.frame_count == 1


def test_what_is_no_training_pass_runs_eagerly_and_a_base_is_left_as_it_was():
    counted = CompileCounterWithBackend("aot_eager")
    trained = Trained(counted)
    for _ in range(3):
        trained.net(torch.zeros(2, 8, WIDTH))
    assert counted.frame_count == 0
    trained.model.compiled.leave()
    assert all("_compiled_call_impl" not in vars(block) for block in trained.net.blocks)


def test_a_block_that_cannot_be_compiled_runs_eagerly_and_that_is_said_once(caplog: pytest.LogCaptureFixture):
    eager, compiled = Trained(), Trained("aot_eager")
    for block in compiled.net.blocks:
        vars(block)["breaks"] = True
    with caplog.at_level(logging.WARNING, logger="lorafleet.pack"):
        for seed in range(3):
            assert all(map(torch.equal, compiled.step(seed), eager.step(seed)))
    assert ["cannot be compiled" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("family", [name for name in FAMILIES.names() if not name.startswith("toy")])
def test_the_blocks_of_every_family_are_known(family: str):
    denoiser: Any = getattr(diffusers, FAMILIES.get(family).denoiser.classes[0])
    named = set(getattr(denoiser, "_repeated_blocks", None) or denoiser._no_split_modules)
    assert named & REPEATED
    assert not {name for name in getattr(denoiser, "_repeated_blocks", None) or () if name not in REPEATED}


@needs_gpu
def test_on_a_gpu_compiled_blocks_learn_what_eager_ones_do():
    eager, compiled = Trained(device="cuda"), Trained("inductor", "cuda")
    for seed in range(4):
        torch.testing.assert_close(compiled.step(seed), eager.step(seed), rtol=1e-4, atol=1e-5)
