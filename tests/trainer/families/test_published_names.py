"""kohya's files of the published models: the names and shapes that readers look up, and the weights that they make of the base's."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from lorafleet.catalog import FAMILIES
from tests.trainer.families import real_adapter
from tests.trainer.families.real import every_linear
from tests.trainer.families.rows import REAL, ROWS

pytestmark = pytest.mark.timeout(300)
ENDS = ("lora_down.weight", "lora_up.weight", "alpha")
NAMED = [name for name, row in ROWS.items() if row.published and row.real]


def golden(family: str, weights: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Of the published names those with a module that has an adapter."""
    trained = {name.rpartition(".lora_")[0].partition(".")[2] for name in weights}
    return {name: modules for name, modules in (ROWS[family].published or dict)().items() if trained.intersection(modules)}


@pytest.mark.parametrize("targets", ["usual", "every"])
@pytest.mark.parametrize("family", NAMED)
def test_keys_are_the_published_ones(family: str, targets: str):
    ends = FAMILIES.get(family).denoiser.target_modules if targets == "usual" else every_linear(REAL[family])
    weights, file = real_adapter.kohya_of(REAL[family], family, ends)
    assert file.keys() == {f"{name}.{end}" for name in golden(family, weights) for end in ENDS}


@pytest.mark.parametrize("family", NAMED)
def test_a_reader_makes_of_the_bases_layers_what_training_made_of_them(family: str):
    """Also where layers that the file has as one have adapters in part. Two blocks of each kind show as much as all of them."""
    layers = real_adapter.layers_of(REAL[family].denoiser())
    for ends in (every_linear(REAL[family]), ("to_k", "to_v", "proj_mlp", "add_q_proj")):
        if not any(f".{name}".endswith(f".{end}") for name in layers for end in ends):
            continue
        weights, file = real_adapter.kohya_of(REAL[family], family, ends)
        seen = golden(family, weights)
        odd = [name for name, modules in seen.items() if set(modules).intersection(ROWS[family].swapped)]
        for name in [*odd, *[*seen][:: max(1, len(seen) // 24)]]:
            update = real_adapter.read_update(file, name)
            expected = [_expected(weights, family, module, layers[module].out_features) for module in seen[name]]
            assert torch.allclose(update, torch.cat(expected), rtol=0, atol=1e-6), name


def _expected(weights: Mapping[str, Tensor], family: str, module: str, num_outputs: int) -> Tensor:
    """Our module's outputs as the published code has them."""
    path = f"{FAMILIES.get(family).denoiser.name}.{module}"
    found = real_adapter.our_update(weights, path) if f"{path}.lora_A.weight" in weights else torch.zeros(num_outputs, 3)
    return torch.cat(found.chunk(2)[::-1]) if module in ROWS[family].swapped else found
