"""What is brought to the device together arrives as it was, by a single copy."""

import torch

from trainer import staging


def test_tensors_of_all_types_and_sizes_come_as_they_were(monkeypatch):
    """The CPU stands for the device: only where it is one nothing needs to be copied."""
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "odd": torch.randn(3, 1, 7, generator=draw),
        "half": torch.randn(5, generator=draw).to(torch.bfloat16),
        "mask": torch.tensor([True, False, True]),
        "whole": torch.tensor([2**40 + 1, -3]),
        "transposed": torch.randn(4, 6, generator=draw).mT,
        "nothing": torch.empty(0, 2),
        "double": torch.randn(2, generator=draw, dtype=torch.float64),
    }
    copies = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: copies.append(tensor) or tensor.clone())
    there = staging.packed(tensors, torch.device("cpu"))
    assert len(copies) == 1
    assert list(there) == list(tensors)
    for name, tensor in tensors.items():
        assert there[name].dtype == tensor.dtype
        assert torch.equal(there[name], tensor)


def test_on_a_cpu_nothing_is_copied():
    tensors = {"one": torch.ones(2)}
    assert staging.together(tensors, torch.device("cpu"))["one"] is tensors["one"]
