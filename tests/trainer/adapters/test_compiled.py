"""What torch.compile makes of one block serves every block that is alike, with adapters on it, and its bits are those of the eager one."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from lorafleet.spec import AdapterSpec
from tests.trainer.adapters.test_adapters import model_of
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.layout import Kind

NUM_BLOCKS, WIDTH = 4, 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.to_v(torch.tanh(self.to_q(x)))


def banked() -> tuple[Any, Bank, nn.Sequential]:
    torch.manual_seed(0)
    blocks = nn.Sequential(*(Block().requires_grad_(False) for _ in range(NUM_BLOCKS)))
    model = model_of(blocks)
    bank = model.add_bank(Kind.of(AdapterSpec(rank=2, target_modules=("to_q", "to_v")), "adamw"), 2, batch_invariant=True)
    for _ in range(2):
        bank.add_style(torch.randn(bank.layout.size), 0.5)
    return model, bank, blocks


def results(model: Any, bank: Bank) -> tuple[Tensor, Tensor]:
    """Of a pass of two styles, and the gradient of their rows."""
    bank.flat.grad = None
    x = torch.randn(4, 8, WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)  # else the first block is another
    with model.serving([ActiveSlots(bank, [0, 1], 0, 2)]):
        out = model.get_submodule("unet")(x)
    out.square().sum().backward()
    return out.detach(), cast("Tensor", bank.flat.grad)


def test_one_graph_serves_all_blocks_that_are_alike_to_the_bit():
    model, bank, blocks = banked()
    eager = results(model, bank)
    torch.compiler.reset()
    counted = CompileCounterWithBackend("aot_eager")
    for block in blocks:
        block.compile(backend=counted, fullgraph=True)
    compiled = [results(model, bank) for _ in range(2)]
    assert counted.frame_count == 1, "a graph that knows a block's name would be made anew for each"
    for again in compiled:
        assert all(map(torch.equal, again, eager))
