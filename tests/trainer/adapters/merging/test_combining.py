"""Adapters as one: the exact kinds are the weighted sum, the others PEFT's own, and the error that is told is the one there is."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lorafleet.errors import InvalidInput
from lorafleet.merge_rules import KINDS
from trainer.adapters.files import updates
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.merging.combining import Ingredient, combine
from trainer.adapters.merging.recipe import Recipe

LINEAR, CONVOLUTION = "unet.mid_block.attentions.0.proj_in", "unet.up_blocks.1.resnets.0.conv1"
OUT, IN = 12, 10


def lora(path: str, rank: int, seed: int, alpha: float = 3.0) -> Module:
    draws = torch.Generator().manual_seed(seed)
    kernel = (3, 3) if path == CONVOLUTION else ()
    a = torch.randn(rank, IN, *kernel, generator=draws)
    b = torch.randn(OUT, rank, *[1] * len(kernel), generator=draws)
    return Module(paths=(path,), method="lora", tensors={"A": a, "B": b}, rank=rank, alpha=alpha)


def loha(path: str, rank: int, seed: int) -> Module:
    draws = torch.Generator().manual_seed(seed)
    shapes = {"w1_a": (OUT, rank), "w1_b": (rank, IN), "w2_a": (OUT, rank), "w2_b": (rank, IN)}
    tensors = {role: torch.randn(shape, generator=draws) for role, shape in shapes.items()}
    return Module(paths=(path,), method="loha", tensors=tensors, rank=rank, alpha=2.0)


def lokr(path: str, seed: int) -> Module:
    draws = torch.Generator().manual_seed(seed)
    tensors = {"w1": torch.randn(3, 2, generator=draws), "w2": torch.randn(4, 5, generator=draws)}
    return Module(paths=(path,), method="lokr", tensors=tensors, rank=2, alpha=2.0)


def dora(path: str, rank: int, seed: int) -> Module:
    module = lora(path, rank, seed)
    magnitude = torch.rand(OUT, generator=torch.Generator().manual_seed(seed)) + 1
    return Module(paths=(path,), method="dora", tensors={**module.tensors, "magnitude": magnitude}, rank=rank, alpha=3.0)


def oft(path: str, seed: int) -> Module:
    blocks = 0.1 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Module(paths=(path,), method="oft", tensors={"blocks": blocks}, rank=4, alpha=0.0)


def named(name: str, *modules: Module, weight: float = 1.0, families: tuple[str, ...] = ("sd1",), **metadata: str) -> Ingredient:
    return Ingredient(name, AdapterFile(format="kohya", families=families, modules=modules, metadata=metadata), weight)


def update_of(adapter: AdapterFile, path: str) -> Tensor:
    (module,) = (each for each in adapter.modules if each.paths == (path,))
    return updates.update(module)


WEIGHT = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(99))
OTHERS = [lora(LINEAR, 5, 2), loha(LINEAR, 2, 3), lokr(LINEAR, 4), dora(LINEAR, 2, 5), oft(LINEAR, 6)]


@pytest.mark.parametrize("other", OTHERS, ids=[each.method for each in OTHERS])
@pytest.mark.parametrize("weight", [0.5, -1.0])
def test_cat_is_the_weighted_sum_of_any_methods(other: Module, weight: float):
    first = lora(LINEAR, 3, 1)
    found = combine([named("a", first, weight=0.7), named("b", other, weight=weight)], Recipe(), {LINEAR: WEIGHT})
    exact = 0.7 * updates.update(first) + weight * updates.update(other, WEIGHT)
    x = torch.randn(IN, 4, dtype=torch.float64)
    assert torch.allclose(update_of(found.adapter, LINEAR) @ x, exact @ x, rtol=1e-5, atol=1e-5)
    assert found.weight_error < 1e-6
    assert found.adapter.methods == ("lora",)


def test_cat_of_convolutions_keeps_their_kernels():
    parts = [lora(CONVOLUTION, 2, 1), lora(CONVOLUTION, 4, 2)]
    found = combine([named("a", parts[0]), named("b", parts[1], weight=0.25)], Recipe())
    (module,) = found.adapter.modules
    assert (module.tensors["A"].shape, module.tensors["B"].shape, module.rank) == ((6, IN, 3, 3), (OUT, 6, 1, 1), 6)
    assert torch.allclose(update_of(found.adapter, CONVOLUTION), updates.update(parts[0]) + 0.25 * updates.update(parts[1]), atol=1e-5)


def test_a_layer_that_only_some_have_is_theirs():
    found = combine([named("a", lora(LINEAR, 2, 1), weight=0.5), named("b", lora(CONVOLUTION, 2, 2), weight=2.0)], Recipe())
    assert torch.allclose(update_of(found.adapter, LINEAR), 0.5 * updates.update(lora(LINEAR, 2, 1)), atol=1e-6)
    assert torch.allclose(update_of(found.adapter, CONVOLUTION), 2 * updates.update(lora(CONVOLUTION, 2, 2)), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4])
def test_svd_is_the_nearest_of_its_rank_and_tells_what_it_leaves_out(rank: int):
    parts = [lora(LINEAR, 3, 1), lora(LINEAR, 3, 2)]
    found = combine([named("a", parts[0]), named("b", parts[1])], Recipe(kind="svd", rank=rank))
    exact = sum(updates.update(part) for part in parts)
    gap = update_of(found.adapter, LINEAR) - exact
    values = torch.linalg.svdvals(exact)
    assert torch.linalg.matrix_norm(gap) == pytest.approx(float(values[rank:].norm()), rel=1e-5)
    assert found.weight_error == pytest.approx(float(torch.linalg.matrix_norm(gap) / torch.linalg.matrix_norm(exact)), rel=1e-5)
    assert found.output_error == (pytest.approx(float(values[rank] / values[0]), rel=1e-5), LINEAR)


def test_a_rank_by_energy_keeps_that_share_and_no_more():
    exact = updates.update(lora(LINEAR, 6, 1))
    squares = torch.linalg.svdvals(exact).square()
    shares = squares.cumsum(0) / squares.sum()
    for rank in (1, 3, 6):
        found = combine([named("a", lora(LINEAR, 6, 1))], Recipe(kind="svd", energy=float(shares[rank - 1]) - 1e-9))
        assert found.adapter.modules[0].rank == rank


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cat"])
@pytest.mark.parametrize("convolution", [False, True])
def test_kinds_are_those_of_peft(kind: str, convolution: bool):
    """DARE with a density of 1, for what is left out otherwise is chance."""
    path = CONVOLUTION if convolution else LINEAR
    parts, scales = [lora(path, 3, 1), lora(path, 3, 2)], [0.7, -0.4]
    density = 1.0 if "dare" in kind else 0.4
    recipe = Recipe(kind=kind, rank=2) if kind == "svd" else Recipe(kind=kind, rank=2, density=density)
    found = combine([named(str(each), part, weight=each) for each, part in zip(scales, parts, strict=True)], recipe)
    theirs = _merged_by_peft(parts, scales, kind, 2, density, convolution=convolution)
    assert torch.allclose(update_of(found.adapter, path), theirs, atol=1e-5)


def _merged_by_peft(parts: list[Module], scales: list[float], kind: str, rank: int, density: float, *, convolution: bool) -> Tensor:
    layer = nn.Conv2d(IN, OUT, 3, bias=False) if convolution else nn.Linear(IN, OUT, bias=False)
    model: Any = nn.Sequential(layer)
    for number, part in enumerate(parts):
        config = LoraConfig(r=part.rank, lora_alpha=int(part.alpha), target_modules=["0"], init_lora_weights=False)
        model = get_peft_model(model, config, adapter_name=str(number)) if number == 0 else model
        if number:
            model.add_adapter(str(number), config)
        held = model.base_model.model[0]
        held.lora_A[str(number)].weight.data = part.tensors["A"].clone()
        held.lora_B[str(number)].weight.data = part.tensors["B"].clone()
    names = [str(number) for number in range(len(parts))]
    model.add_weighted_adapter(names, scales, "merged", combination_type=kind, svd_rank=rank, density=density)
    return model.base_model.model[0].get_delta_weight("merged").detach().flatten(1).double()


def test_chance_has_a_seed():
    def dare(seed: int) -> Tensor:
        parts = [named("a", lora(LINEAR, 3, 1)), named("b", lora(LINEAR, 3, 2))]
        return update_of(combine(parts, Recipe(kind="dare_linear_svd", rank=6, seed=seed)).adapter, LINEAR)

    torch.manual_seed(1)
    first = dare(7)
    assert torch.equal(dare(7), first)
    assert not torch.equal(dare(8), first)


def test_what_chance_leaves_out_of_one_layer_is_not_what_it_leaves_out_of_another():
    other = "unet.mid_block.attentions.0.proj_out"
    twice = Module(**{**vars(lora(LINEAR, 3, 1)), "paths": (other,)})
    found = combine([named("a", lora(LINEAR, 3, 1), twice)], Recipe(kind="dare_linear_svd", rank=6)).adapter
    assert not torch.equal(update_of(found, LINEAR), update_of(found, other))


@pytest.mark.parametrize("pattern", ["unet.mid_block", "unet.mid*", LINEAR, "*.proj_in"])
def test_a_block_has_a_weight_of_its_own(pattern: str):
    given = [named("a", lora(LINEAR, 2, 1), lora(CONVOLUTION, 2, 2))]
    found = combine(given, Recipe(blocks=((pattern, 0.5),)))
    assert torch.allclose(update_of(found.adapter, LINEAR), 0.5 * updates.update(lora(LINEAR, 2, 1)), atol=1e-6)
    assert torch.allclose(update_of(found.adapter, CONVOLUTION), updates.update(lora(CONVOLUTION, 2, 2)), atol=1e-6)


def test_the_error_of_rounding_is_told_too():
    found = combine([named("a", lora(LINEAR, 3, 1))], Recipe(), dtype=torch.bfloat16)
    exact = updates.update(lora(LINEAR, 3, 1))
    gap = update_of(found.adapter, LINEAR) - exact
    assert found.weight_error == pytest.approx(float(torch.linalg.matrix_norm(gap) / torch.linalg.matrix_norm(exact)), rel=1e-4)
    assert 1e-4 < found.weight_error < 1e-2


@pytest.mark.parametrize(
    ("given", "recipe", "told"),
    [
        ([named("a", lora(LINEAR, 2, 1)), named("b", lora(LINEAR, 2, 2), families=("flux", "chroma"))], Recipe(), "b is of flux or chroma"),
        ([named("a", lora(LINEAR, 2, 1), weight=0.0)], Recipe(), "all weights are zero"),
        ([named("a", lora(LINEAR, 2, 1))], Recipe(blocks=(("unet.up_blocks.9", 2.0),)), "unet.up_blocks.9 matches no module"),
        ([named("a", lora(LINEAR, 2, 1))], Recipe(rank=4, density=0.5), "--rank: cat is exact.*\n--density: cat leaves nothing out"),
        ([named("a", lora(LINEAR, 2, 1))], Recipe(kind="svd", rank=4, energy=1.5), "choose one\n--energy: 1.5 is no share"),
        ([named("a", dora(LINEAR, 2, 1))], Recipe(), "made of the base's weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_combined_is_told(given: list[Ingredient], recipe: Recipe, told: str):
    with pytest.raises(InvalidInput, match=told):
        combine(given, recipe)


def test_other_bases_are_refused_with_both_digests_and_combined_when_forced():
    given = [
        named("a", lora(LINEAR, 2, 1), **{"lorafleet.base_digest": "d1", "ss_sd_model_hash": "h"}),
        named("b", lora(LINEAR, 2, 2), **{"lorafleet.base_digest": "d2", "ss_sd_model_hash": "h"}),
        named("c", lora(LINEAR, 2, 3)),
    ]
    with pytest.raises(InvalidInput, match="a on d1; b on d2"):
        combine(given, Recipe())
    assert combine(given, Recipe(), on_any_base=True).adapter.modules[0].rank == 6


def test_layers_of_other_shapes_are_refused_even_so():
    larger = Module(paths=(LINEAR,), method="lora", tensors={"A": torch.ones(2, 7), "B": torch.ones(OUT, 2)}, rank=2, alpha=2.0)
    with pytest.raises(InvalidInput, match=r"proj_in is \[12, 10\] in a, but \[12, 7\] in b"):
        combine([named("a", lora(LINEAR, 2, 1)), named("b", larger)], Recipe(), on_any_base=True)
