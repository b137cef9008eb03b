"""LoKr's files load in diffusers where it reads them, and are there the weights that were trained; elsewhere it reads none."""

from collections.abc import Callable
from typing import Any

import pytest

from lorafleet.catalog import METHODS as FACTS
from lorafleet.errors import RunFailed
from tests.trainer.families.styles import Families
from tests.trainer.families.test_files import LATENTS_APART, STEPS, apart, drawn, loaded, pipeline_of
from trainer.adapters.formats.tensors import by_module
from trainer.adapters.layout import scaling
from trainer.adapters.methods import METHODS

pytestmark = pytest.mark.timeout(600)
Of = Callable[[str], Families]
READ = FACTS.get("lokr").loaded_by_diffusers or ()


@pytest.mark.parametrize("family", [name if name == "zimage" else pytest.param(name, marks=pytest.mark.proof) for name in READ])
def test_a_lokr_draws_in_diffusers_what_was_trained(families: Of, family: str):
    packs = families(family)
    targets: list[Any] = [name for name in packs.row.target_modules if name.startswith("to_") or "attention" in name]
    style = packs.style(
        "lokr",
        adapter={"method": "lokr", "rank": 1, "alpha": 3.0, "target_modules": targets},
        training={"max_steps": STEPS, "learning_rate": 5e-2, "lr_scheduler": "constant"},
        output={"precision": "fp32", "formats": ["diffusers"]},
    )
    assert packs.train(style).endings == {style.job: "succeeded"}
    plain, merged, adapter = pipeline_of(packs), pipeline_of(packs), style.spec.adapter
    for path, tensors in by_module(packs.adapter("lokr"), adapter).items():
        part, _, module = path.partition(".")
        layer = getattr(merged, part).get_submodule(module)
        layer.weight.data = METHODS.get("lokr").merged(layer.weight.data, tensors, scaling(adapter))
    trained = drawn(merged, packs.row, "latent")
    assert apart(trained, drawn(loaded(packs, style, "diffusers"), packs.row, "latent")) <= LATENTS_APART
    assert apart(trained, drawn(plain, packs.row, "latent")) > 10 * LATENTS_APART, "the adapter shows"


def test_a_lokr_on_layers_that_are_one_in_files_is_refused_in_comfyuis_format_alone(families: Of):
    packs = families("flux")
    adapter = {"method": "lokr", "target_modules": ["to_q", "to_k", "norm_out.linear"]}
    assert packs.ready(packs.style("apart", adapter=adapter)).spec.output.formats == ("kohya",)
    with pytest.raises(RunFailed, match=r"as one layer; lokr cannot be one adapter of theirs: leave comfyui out"):
        packs.ready(packs.style("in-one", adapter=adapter, output={"formats": ["kohya", "comfyui"]}))
