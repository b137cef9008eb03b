"""The published denoisers take what the families give them, and the memory facts hold for them: counted without their weights."""

from math import prod

import pytest

from lorafleet.catalog import FAMILIES
from tests.trainer.families import real, real_adapter
from tests.trainer.families.rows import MEASURED, REAL

pytestmark = pytest.mark.timeout(300)
QUICK = ("flux2", "zimage")  # of the others each takes more than five seconds


@pytest.mark.parametrize("family", [pytest.param(name, marks=() if name in QUICK else pytest.mark.proof) for name in REAL])
def test_the_published_denoiser_does_one_step(family: str):
    step = real.step(family, REAL[family], FAMILIES.get(family).denoiser.target_modules)
    assert step.predicted.shape == (1, *REAL[family].latents)
    assert step.gradient is not None
    assert step.gradient.shape == (1, num_params(family))


@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", [pytest.param(name, marks=() if name == "sd1" else pytest.mark.proof) for name in MEASURED])
def test_its_activations_are_what_its_facts_say_at_either_size(family: str, recomputes: bool):
    """No more, for a worker must not run out of memory, nor a fifth less: packs would be smaller than they could be."""
    published = MEASURED[family]
    for each in (published, published.half_as_wide):
        assert 1 / 1.2 <= real.of_facts(family, each, real.every_linear(each), recomputes=recomputes) <= 1


@pytest.mark.parametrize("family", MEASURED)
def test_the_cache_keeps_what_its_facts_say(family: str):
    published, facts = MEASURED[family], FAMILIES.get(family)
    texts = [shape for name, shape in published.conditioning.items() if name != "time_ids"]  # that follow from a picture's size
    assert facts.text_values + facts.large_text_values == sum(map(prod, texts))
    assert facts.latent_channels * published.patch**2 == published.latents[0]


def num_params(family: str) -> int:
    """Of LoRA on the usual layers, counted by the published shapes."""
    layers = real_adapter.layers_of(REAL[family].denoiser())
    ends = FAMILIES.get(family).denoiser.target_modules
    trained = [layer for name, layer in layers.items() if any(f".{name}".endswith(f".{end}") for end in ends)]
    return sum(real.RANK * (layer.in_features + layer.out_features) for layer in trained)
