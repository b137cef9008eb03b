"""What is FLUX.1's alone: how many tokens T5 keeps, guidance in training, and how diffusers reads kohya's file of the published model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.loaders import lora_conversion_utils

from lorafleet.catalog import FAMILIES
from lorafleet.errors import RunFailed
from tests.trainer.families import flux, real_adapter
from tests.trainer.families.rows import REAL
from tests.trainer.families.styles import Families
from trainer.families.flux import FAMILY, TRAINING_GUIDANCE

Of = Callable[[str], Families]
FACTS = FAMILIES.get("flux")


@pytest.mark.parametrize(("guidance_embeds", "tokens"), [(True, 512), (False, 256)])
def test_schnell_reads_half_as_many_tokens_as_dev(guidance_embeds: bool, tokens: int):
    configs = {"transformer": {"guidance_embeds": guidance_embeds}, "tokenizer_2": {"model_max_length": 512}, "tokenizer": {}}
    assert FACTS.max_tokens(configs) == {"tokenizer": 77, "tokenizer_2": tokens}


def test_a_tokenizer_that_keeps_less_is_believed():
    assert FACTS.max_tokens({"transformer": {"guidance_embeds": True}, "tokenizer_2": {"model_max_length": 128}})["tokenizer_2"] == 128


def test_dev_is_told_that_pictures_are_not_guided_and_schnell_nothing():
    told: list[Any] = []

    class Transformer(torch.nn.Module):
        config = type("Config", (), {"guidance_embeds": True})

        def forward(self, hidden_states: torch.Tensor, guidance: Any, **_: Any) -> Any:
            told.append(guidance)
            return type("Output", (), {"sample": hidden_states})

    conditioning = {"text": torch.zeros(2, 3, 8), "pooled": torch.zeros(2, 8)}
    noisy = torch.randn(2, 4, 6, 8)
    transformer = Transformer()
    assert torch.equal(FAMILY.predict({"transformer": transformer}, noisy, torch.tensor([1.0, 2.0]), conditioning), noisy)
    Transformer.config.guidance_embeds = False  # pyright: ignore[reportAttributeAccessIssue]
    FAMILY.predict({"transformer": transformer}, noisy, torch.tensor([1.0, 2.0]), conditioning)
    assert torch.equal(told[0], torch.tensor([TRAINING_GUIDANCE] * 2))
    assert told[1] is None


def test_diffusers_takes_every_layer_of_the_published_blocks_apart_again():
    """Its own converter, on a file of FLUX.1's 19 and 38 blocks. What it makes of a layer is the layer's own update."""
    weights, file = real_adapter.kohya_of(REAL["flux"], "flux", FACTS.denoiser.target_modules)
    found = vars(lora_conversion_utils)[flux.CONVERTER](dict(file))
    modules = {name.rpartition(".lora_")[0] for name in weights}
    assert len(modules) == 19 * 12 + 38 * 3
    others = {name.rpartition(".lora_")[0] for name in found} - modules
    assert all(name.endswith("proj_mlp") for name in others)  # of linear1, of which nothing was trained
    for module in sorted(modules)[::7]:
        assert torch.allclose(_update(found, module), real_adapter.our_update(weights, module), rtol=1e-5, atol=1e-6), module
    assert not any(_update(found, module).any() for module in others)


def _update(found: Any, module: str) -> torch.Tensor:
    a, b = found[f"{module}.lora_A.weight"], found[f"{module}.lora_B.weight"]
    return b @ (a @ real_adapter.seen(a.shape[1]))


def test_a_dora_on_part_of_a_fused_layer_is_refused_where_kohyas_file_is_asked_for(families: Of):
    packs = families("flux")
    method = {"method": "dora", "target_modules": ["to_q", "to_k", "to_v"]}
    with pytest.raises(RunFailed, match=r"target_modules: kohya's files of flux have .*proj_mlp as one layer; with dora train all"):
        packs.ready(packs.style("part", adapter=method))
    assert packs.ready(packs.style("part", adapter=method, output={"formats": ["diffusers"]}))
    assert packs.ready(packs.style("whole", adapter={**method, "target_modules": [*method["target_modules"], "proj_mlp"]}))
