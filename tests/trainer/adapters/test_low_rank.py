"""The low-rank product with a backward pass of its own: torch's numbers, on a CPU to the last bit."""

import pytest
import torch
from torch import Tensor

from trainer.adapters import low_rank

SHAPES = [(1, 4, 32, 48, 2), (2, 16, 64, 32, 4), (16, 8, 40, 40, 16), (3, 77, 48, 20, 33)]  # slots, rows, inputs, outputs, rank


def by_torch(x: Tensor, a: Tensor, b: Tensor, scaling: Tensor, out: Tensor) -> Tensor:
    return torch.baddbmm(out, torch.bmm(x, a.mT) * scaling[:, None, None], b.mT)


def results(product, shape: tuple[int, ...], *, computes: torch.dtype) -> list[Tensor]:
    """What it gives, and the gradients of all that has one."""
    slots, rows, inputs, outputs, rank = shape
    draw = torch.Generator().manual_seed(0)
    sizes = [(slots, rows, inputs), (slots, rank, inputs), (slots, outputs, rank), (slots,), (slots, rows, outputs)]
    x, a, b, scaling, out = (torch.randn(size, generator=draw) for size in sizes)
    learns = [each.requires_grad_() for each in (x, a, b, out.to(computes))]
    with torch.autocast("cpu", torch.bfloat16, enabled=computes == torch.bfloat16):
        given = product(*learns[:3], scaling, learns[3])
    given.backward(torch.randn(given.shape, generator=draw).to(given.dtype))
    return [given, *(each.grad for each in learns)]


@pytest.mark.parametrize("computes", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_cpu_every_bit_is_what_torch_gives(shape: tuple[int, ...], computes: torch.dtype):
    for ours, theirs in zip(*(results(product, shape, computes=computes) for product in (low_rank.add_low_rank, by_torch)), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_elsewhere_gradients_come_as_they_are_kept_and_are_the_same_but_for_rounding(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(low_rank, "_as_torch", lambda _device: False)
    ours, theirs = (results(product, shape, computes=torch.float32) for product in (low_rank.add_low_rank, by_torch))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)
    assert all(gradient.is_contiguous() for gradient in ours[1:])
