"""Each kind with each family and pair of methods: outputs are the weighted sum where the kind is exact, and else off by what is told.

`make test` tries each two of these together once or more, proofs all of them.
"""

from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn

from lorafleet.merge_rules import CAT, KINDS
from tests.trainer.adapters.files import made as of_families
from tests.trainer.generation import made
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile
from trainer.adapters.files.writing import write
from trainer.adapters.layout import Layer
from trainer.adapters.merging.combining import Ingredient, combine
from trainer.adapters.merging.recipe import Recipe

METHODS = ("lora", "dora", "loha", "lokr", "oft")
Case = tuple[str, str, str, str]  # family, kind, method of the one, of the other
SCALES = (0.7, -0.4)
EVERY: tuple[Case, ...] = tuple(product(of_families.FAMILY_NAMES, KINDS, METHODS, METHODS))


def twos(case: Case) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    """What of a case meets what."""
    return set(combinations(enumerate(case), 2))


def pairwise() -> list[Case]:
    """So many that all of them meet: always the next that brings as many as there can be new."""
    left = {each for case in EVERY for each in twos(case)}
    found: list[Case] = []
    for wanted in range(6, 0, -1):
        for case in EVERY:
            if len(new := left & twos(case)) >= wanted:
                found.append(case)
                left -= new
    return found


def adapter_of(family: str, method: str, layers: dict[str, Layer], seed: int, rank: int) -> AdapterFile:
    return made.on(layers, method, seed, rank=rank, family=family)


def layers_of(family: str) -> dict[str, Layer]:
    """One of each shape, and of the UNets a convolution."""
    part = "unet" if family in ("sd1", "sd2", "sdxl") else "transformer"
    found: dict[tuple[int, ...], tuple[str, Layer]] = {}
    for path in of_families.modules(family):
        (_, inputs, *kernel), (outputs, *_) = of_families.shapes(path)
        layer = nn.Conv2d(inputs, outputs, kernel[0], bias=False) if kernel else nn.Linear(inputs, outputs, bias=False)
        found.setdefault((outputs, *kernel), (f"{part}.{path}", layer))
    return dict(found.values())


def check(case: Case) -> None:
    family, kind, *methods = case
    torch.manual_seed(1)
    layers = layers_of(family)
    given = [
        Ingredient(str(rank), adapter_of(family, method, layers, 10 * rank, rank), scale)
        for rank, method, scale in zip((2, 4), methods, SCALES, strict=True)
    ]
    weights = {path: layer.weight.detach() for path, layer in layers.items()}
    found = combine(given, Recipe(kind=kind), weights)
    left_out, whole, worst = 0.0, 0.0, 0.0
    for module in found.adapter.modules:
        path = module.paths[0]
        parts = [next(each for each in one.adapter.modules if each.paths == (path,)) for one in given]
        exact = sum_of([scale * updates.update(part, weights[path]) for scale, part in zip(SCALES, parts, strict=True)])
        gap = updates.update(module).flatten(1) - exact
        inputs = torch.randn(exact.shape[1], 3, dtype=torch.float64)
        if kind == CAT:
            assert torch.allclose(updates.update(module).flatten(1) @ inputs, exact @ inputs, atol=1e-5, rtol=1e-5), path
        left_out, whole = left_out + float(gap.square().sum()), whole + float(exact.square().sum())
        worst = max(worst, float(torch.linalg.matrix_norm(gap, 2) / torch.linalg.matrix_norm(exact, 2)))
    assert found.weight_error == pytest.approx((left_out / whole) ** 0.5, rel=1e-3, abs=1e-6)
    assert found.output_error[0] == pytest.approx(worst, rel=1e-3, abs=1e-6)
    (data,) = write(found.adapter, "diffusers").files.values()
    read = of_families.read(data, family)
    for module in found.adapter.modules:
        again = next(each for each in read.modules if each.paths == module.paths)
        assert torch.allclose(updates.update(again), updates.update(module), atol=1e-6)


def sum_of(each: list[Tensor]) -> Tensor:
    return torch.stack([one.flatten(1).double() for one in each]).sum(0)


PAIRWISE = pairwise()


@pytest.mark.parametrize("case", PAIRWISE, ids="-".join)
def test_a_kind_is_the_weighted_sum_or_off_by_what_is_told(case: Case):
    check(case)


@pytest.mark.proof
@pytest.mark.parametrize("family", of_families.FAMILY_NAMES)
def test_so_is_every_kind_with_every_two_methods(family: str):
    for case in EVERY:
        if case[0] == family and case not in PAIRWISE:
            check(case)
