"""Rows with different adapters in one pass: each row gets what its own adapters add, to the bit whoever the others are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainer.generation import made
from tests.trainer.generation.made import randn
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.generation.adapter import Adapter, misfits, prepared
from trainer.generation.places import Places
from trainer.generation.stacks import Uses, stacked

CPU = torch.device("cpu")
METHODS = ("lora", "dora", "loha", "lokr", "oft")
LINEAR, CONV = "net.linear", "net.conv"


class Net(nn.Module):
    """A layer of either kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(24, 32)
        self.conv = nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.conv(pixels)


class Base:
    def __init__(self) -> None:
        self.net = Net()
        self.places = Places({"net": self.net})

    def adapter(self, method: str, seed: int, **settings: Any) -> Adapter:
        return self.of(made.on(self.places.layers, method, seed, **settings))

    def of(self, file: AdapterFile) -> Adapter:
        return prepared(file, f"{id(file)}", self.places.layers)

    def outputs(self, rows: list[Uses], seeds: list[int], times: int = 1) -> list[Tensor]:
        x, pixels = torch.stack([randn(seed, 7, 24) for seed in seeds]), torch.stack([randn(seed, 8, 6, 6) for seed in seeds])
        with torch.no_grad(), self.places.with_stacks(stacked(rows, CPU)):
            return list(self.net(torch.cat([x] * times), torch.cat([pixels] * times)))

    def fused(self, given: list[tuple[AdapterFile, float]], seeds: list[int]) -> list[Tensor]:
        """What plain layers give whose weights have the sum of the updates."""
        plain = Net()
        with torch.no_grad():
            for path, layer in ((LINEAR, plain.linear), (CONV, plain.conv)):
                kept = layer.weight.clone()
                for file, weight in given:
                    its = next(module for module in file.modules if module.paths == (path,))
                    update, scale = updates.update(replace(its, alpha=its.alpha * weight) if its.method == "dora" else its, kept), weight
                    layer.weight += (1.0 if its.method == "dora" else scale) * update.float().view_as(kept)
            return list(plain(torch.stack([randn(seed, 7, 24) for seed in seeds]), torch.stack([randn(seed, 8, 6, 6) for seed in seeds])))


@pytest.fixture
def base() -> Base:
    return Base()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weight", [1.0, 0.6])
def test_a_row_is_what_fused_weights_compute(base: Base, method: str, weight: float):
    file = made.on(base.places.layers, method, 1)
    found = base.outputs([[(base.of(file), weight)]] * 3, [1, 2, 3])
    for ours, theirs in zip(found, base.fused([(file, weight)], [1, 2, 3]), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("other", METHODS)
def test_several_adapters_of_a_row_are_summed(base: Base, other: str):
    first, second = made.on(base.places.layers, "lora", 1, rank=2), made.on(base.places.layers, other, 50)
    found = base.outputs([[(base.of(first), 0.7), (base.of(second), -0.5)], [], [(base.of(first), 1.0)]], [4, 5, 6])
    summed, alone = base.fused([(first, 0.7), (second, -0.5)], [4]), base.fused([], [5])
    for ours, theirs, bare in zip(found, summed, alone, strict=True):
        assert torch.allclose(ours[:1], theirs, atol=2e-5, rtol=1e-4)
        assert torch.allclose(ours[1:2], bare, atol=1e-6)


def test_every_row_has_its_own_bits_whoever_the_others_are(base: Base):
    """Adapters of several ranks and methods, some on one layer only, in one pass of a fixed number of rows; halves of guidance too."""
    adapters = [base.adapter(method, 10 * number, rank=2 + number) for number, method in enumerate(METHODS)]
    linear = {LINEAR: base.places.layers[LINEAR]}
    part = base.of(made.on(linear, "lora", 7, rank=4))
    uses: list[Uses] = [*([(each, 0.5)] for each in adapters), [(part, 1.0)], [], [(adapters[0], 1.0), (adapters[1], 0.3), (part, -1.0)]]
    together = base.outputs(uses, list(range(8)), times=2)
    for row, its in enumerate(uses):
        alone = base.outputs([its] * 8, [row] * 8, times=2)
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours[0], theirs[row])
            assert torch.equal(ours[8], theirs[8 + row])
        shuffled = base.outputs([*uses[row + 1 :], *uses[: row + 1]], [*range(row + 1, 8), *range(row + 1)], times=2)
        assert all(torch.equal(ours[7], theirs[row]) for ours, theirs in zip(shuffled, together, strict=True))


def tucker(of: Module) -> Module:
    a, b = of.tensors["A"], of.tensors["B"]
    return of.with_tensors({"A": a[:, :, :1, :1].contiguous(), "mid": randn(9, 4, 4, 3, 3) / 4, "B": b})


def of_inputs(of: Module) -> Module:
    """Magnitudes of a layer's inputs, as older programs keep them."""
    inputs = of.tensors["A"].shape[1]
    return replace(of, method="dora", tensors={**of.tensors, "magnitude": 1 + randn(3, 1, inputs, *[1] * (of.tensors["A"].ndim - 2)).abs()})


def rescaled(of: Module) -> Module:
    return of.with_tensors({**of.tensors, "rescale": 1 + randn(2, of.tensors["blocks"].shape[:2].numel(), 1) / 10})


def held(of: Module) -> Module:
    return replace(of, alpha=0.05)


def in_factors(of: Module) -> Module:
    first = of.tensors["w1"]
    more = {"w1_a": first, "w1_b": torch.eye(first.shape[1])}
    return of.with_tensors({**more, **{role: tensor for role, tensor in of.tensors.items() if role != "w1"}})


@pytest.mark.parametrize(
    ("method", "changed", "paths"),
    [
        ("lora", tucker, [CONV]),
        ("lora", of_inputs, [LINEAR, CONV]),
        ("oft", rescaled, [LINEAR, CONV]),
        ("oft", held, [LINEAR, CONV]),
        ("lokr", in_factors, [LINEAR]),
    ],
)
def test_what_only_files_of_others_have_is_computed_too(base: Base, method: str, changed: Callable[[Module], Module], paths: list[str]):
    file = made.on({path: base.places.layers[path] for path in paths}, method, 3)
    file = replace(file, modules=tuple(map(changed, file.modules)))
    found = dict(zip((LINEAR, CONV), base.outputs([[(base.of(file), 1.0)]] * 2, [1, 2]), strict=True))
    for module in file.modules:
        layer = base.places.layers[module.paths[0]]
        plain = Net()
        with torch.no_grad():
            weight = layer.weight + updates.update(module, layer.weight.detach()).float().view_as(layer.weight)
            plain.get_submodule(module.path).weight.copy_(weight)  # pyright: ignore
            x, pixels = (torch.stack([randn(seed, *shape) for seed in (1, 2)]) for shape in ((7, 24), (8, 6, 6)))
            theirs = dict(zip((LINEAR, CONV), plain(x, pixels), strict=True))
        assert torch.allclose(found[module.paths[0]], theirs[module.paths[0]], atol=2e-5, rtol=1e-4)


def test_what_is_of_other_shapes_is_named(base: Base):
    other = nn.Linear(16, 32)
    wrong = AdapterFile(format="kohya", families=("sd1",), modules=(made.module(LINEAR, other, "lora", 1),))
    missing = AdapterFile(format="kohya", families=("sd1",), modules=(made.module("net.other", other, "lora", 1),))
    assert list(misfits(wrong, base.places.layers, "a")) == [
        "a is of a base of other shapes: net.linear has 32 outputs and 24 inputs here, and 32 and 16 in the file"
    ]
    assert list(misfits(missing, base.places.layers, "a")) == ["a has 1 modules that this base has not, such as net.other"]
    for method in METHODS:
        assert not list(misfits(made.on(base.places.layers, method, 1), base.places.layers, "a"))
