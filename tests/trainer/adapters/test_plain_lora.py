"""The plain LoRA beside an adapter is the nearest there is, and its error is what it leaves out: of every method, by the numbers."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorafleet.catalog import METHODS as FACTS
from lorafleet.spec import AdapterSpec
from trainer.adapters import beginnings, plain_lora
from trainer.adapters.layout import scaling, weight_shape
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.tlora import kept_ranks
from trainer.adapters.plain_lora import PlainLora

ADDED = ("dora", "loha", "lokr", "oft")
LAYERS: Mapping[str, Any] = {"unet.linear": nn.Linear(12, 8), "unet.conv": nn.Conv2d(6, 10, 3), "unet.point": nn.Conv2d(6, 6, 1)}
FULL = 12  # no layer has more


def spec(method: str, **fields: Any) -> AdapterSpec:
    alpha = {"alpha": 3.0} if FACTS.get(method).has_alpha else {}
    return AdapterSpec(method=method, rank=4, target_modules=("linear", "conv", "point"), **alpha, **fields)


def drawn(adapter: AdapterSpec, layers: Mapping[str, Any] = LAYERS) -> dict[str, Tensor]:
    facts, draws = FACTS.get(adapter.method), torch.Generator().manual_seed(1)
    return {
        f"{path}.{facts.names[role]}": torch.randn(shape, generator=draws).abs()
        if role == "magnitude"
        else torch.randn(shape, generator=draws)
        for path, layer in layers.items()
        for role, shape in facts.tensors(adapter.at(path).rank, weight_shape(layer)).items()
    }


def update(adapter: AdapterSpec, weights: Mapping[str, Tensor], path: str, layer: Any) -> Tensor:
    """What the method's own merge adds to a layer."""
    facts, frozen = FACTS.get(adapter.method), layer.weight.detach().double()
    tensors = {role: weights[f"{path}.{end}"].double() for role, end in facts.names.items() if f"{path}.{end}" in weights}
    return METHODS.get(adapter.method).merged(frozen, tensors, scaling(adapter.at(path))) - frozen


def added(found: PlainLora, path: str) -> Tensor:
    a, b = (found.weights[f"{path}.lora_{side}.weight"].double() for side in "AB")
    return scaling(found.adapter.at(path)) * b.flatten(1) @ a.flatten(1)


def size(tensors: list[Tensor]) -> float:
    return float(torch.cat([each.flatten() for each in tensors]).norm())


@pytest.mark.parametrize("method", ADDED)
@pytest.mark.parametrize("rank", [2, FULL])
def test_its_error_is_what_it_leaves_out_and_nothing_of_a_whole_rank(method: str, rank: int):
    adapter = spec(method)
    weights = drawn(adapter)
    found = plain_lora.nearest(weights, adapter, rank, LAYERS)
    wanted = {path: update(adapter, weights, path, layer).flatten(1) for path, layer in LAYERS.items()}
    left = {path: each - added(found, path) for path, each in wanted.items()}
    assert found.error == pytest.approx(size(list(left.values())) / size(list(wanted.values())), abs=1e-6)
    assert found.worst[0] == pytest.approx(max(size([left[path]]) / size([wanted[path]]) for path in wanted), abs=1e-6)
    assert (found.error < 1e-6) == (rank == FULL)
    for path, layer in LAYERS.items():
        nearest = torch.linalg.svdvals(wanted[path])[rank:]  # Eckart and Young 1936
        assert size([left[path]]) == pytest.approx(float(nearest.norm()), abs=1e-5)
        shapes = FACTS.get("lora").tensors(rank, weight_shape(layer))
        assert {side: tuple(found.weights[f"{path}.lora_{side}.weight"].shape) for side in "AB"} == shapes


def test_of_a_large_layer_it_is_found_by_iterations_and_as_near():
    adapter, layers = spec("loha"), {"unet.linear": nn.Linear(530, 520)}
    weights = drawn(adapter, layers)
    found = plain_lora.nearest(weights, adapter, 3, layers)
    exact = torch.linalg.svdvals(update(adapter, weights, "unet.linear", layers["unet.linear"]))
    assert found.error == pytest.approx(float(exact[3:].norm() / exact.norm()), rel=1e-3)
    assert torch.equal(
        found.weights["unet.linear.lora_A.weight"], plain_lora.nearest(weights, adapter, 3, layers).weights["unet.linear.lora_A.weight"]
    )


@pytest.mark.parametrize("initialization", ["kaiming", "orthogonal"])
def test_of_a_t_lora_it_is_the_nearest_to_its_updates_at_all_times(initialization: str):
    adapter = spec("tlora", min_rank=2, initialization=initialization)
    path, layer = "unet.linear", LAYERS["unet.linear"]
    written = beginnings.plain(adapter)  # of twice the rank where its beginning is subtracted
    weights = drawn(written, {path: layer})
    found = plain_lora.nearest(weights, adapter, 3, {path: layer})
    a, b = (weights[f"{path}.lora_{side}.weight"].double() for side in "AB")
    times = (torch.arange(1000) + 0.5) / 1000
    kept = kept_ranks(times, adapter.rank, 2).double().repeat(1, written.rank // adapter.rank)
    at_times = [scaling(written) * (b * mask) @ a for mask in kept.unique(dim=0)]
    often = torch.stack([(kept == mask).all(dim=1).double().mean() for mask in kept.unique(dim=0)])
    mean = sum(float(share) * each for share, each in zip(often, at_times, strict=True))
    left = torch.stack([(each - added(found, path)).square().sum() for each in at_times])
    whole = torch.stack([each.square().sum() for each in at_times])
    assert found.error == pytest.approx(float((left @ often / (whole @ often)).sqrt()), rel=1e-3)
    assert isinstance(mean, Tensor)
    assert size([added(found, path) - mean]) == pytest.approx(float(torch.linalg.svdvals(mean)[3:].norm()), rel=1e-3, abs=1e-5)


def test_an_adapter_that_adds_nothing_has_no_error():
    adapter = spec("loha")
    found = plain_lora.nearest({name: torch.zeros_like(each) for name, each in drawn(adapter).items()}, adapter, 2, LAYERS)
    assert found.error == 0
    assert all(bool(each.isfinite().all()) for each in found.weights.values())
