"""Styles of one pack may have other optimizers, methods and ranks: each learns, resumes to the bit, and is what it would be alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorafleet import catalog
from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof

NAMES = [name for name in catalog.OPTIMIZERS.names() if name != "adamw"]
QUICK = ("adamw_8bit", "adamw_schedule_free")  # bytes, numbers and an average: each kind of state
MIXED = {"adamw": ("lora", 2), "adamw_8bit": ("loha", 3), "adamw_schedule_free": ("oft", 4)}  # method and rank beside each of them
METHODS = [name for name in catalog.METHODS.names() if not name.startswith("toy")]
TOKENS = {
    "dataset": {"trigger_phrase": "<s1>"},
    "textual_inversion": {"tokens": [{"token": "<s1>", "num_vectors": 2, "initial_text": "red cat"}]},
}
TRAINED: dict[str, dict[str, Any]] = {
    **{name: {"adapter": {"method": name}} for name in METHODS},
    "pissa": {"adapter": {"initialization": "pissa"}},
    "orthogonal": {"adapter": {"initialization": "orthogonal"}},
    "tlora-orthogonal": {"adapter": {"method": "tlora", "initialization": "orthogonal", "min_rank": 2}},
    "tokens": TOKENS,
    "tokens-alone": {**TOKENS, "textual_inversion": {**TOKENS["textual_inversion"], "alone": True}},
}
RATES = {"prodigy": 1.0, "lion": 1e-4, "lion_8bit": 1e-4}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("optimizers"), group)


def style(packs: Packs, prefix: str, name: str, **parts: dict[str, Any]) -> Style:
    schedule = "constant" if catalog.OPTIMIZERS.get(name).averages else "cosine"
    training = {"optimizer": name, "learning_rate": RATES.get(name, 1e-3), "lr_scheduler": schedule, **parts.pop("training", {})}
    return packs.style(f"{prefix}-{name}", training=training, **parts)


def assert_each_trains_in_company_as_alone(packs: Packs, company: dict[str, tuple[str, int]], **parts: dict[str, Any]) -> None:
    """By optimizer, which method and rank it is given."""
    together, apart = (
        [style(packs, how, name, adapter={"method": method, "rank": rank}, **parts) for name, (method, rank) in company.items()]
        for how in ("together", "apart")
    )
    assert set(packs.train(*together).endings.values()) == {"succeeded"}
    for name, alone in zip(company, apart, strict=True):
        packs.train(alone, batch_invariant=True)
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"apart-{name}"))


def test_other_methods_ranks_and_optimizers_train_in_company_as_alone(packs: Packs):
    assert set(MIXED) == {"adamw", *QUICK}
    assert_each_trains_in_company_as_alone(packs, MIXED, training={"max_steps": 3})


@proof
@pytest.mark.timeout(1200)  # ten trainings
@pytest.mark.parametrize("turn", range(len(TRAINED)))
def test_every_optimizer_with_all_that_is_trained_goes_on_after_a_kill_in_company_as_alone(packs: Packs, turn: int):
    """In each pack every optimizer, with methods, beginnings, new tokens and moving averages that change by turns."""
    assert {parts.get("adapter", {}).get("method", "lora") for parts in TRAINED.values()} == set(METHODS), "every method has its turn"
    packs, optimizers = Packs(packs.folder / f"turn-{turn}", packs.group), ["adamw", *NAMES]
    parts = {name: trained_with(name, place, turn) for place, name in enumerate(optimizers)}
    together = [style(packs, "together", name, **parts[name]) for name in optimizers]
    with pytest.raises(Killed):
        packs.train(*together, recorder=dies_at(job_of("together-adamw"), 3))
    resumed = packs.train(*together)
    assert resumed.resumed_from == {job_of(f"together-{name}"): 2 for name in optimizers}
    assert set(resumed.endings.values()) == {"succeeded"}
    for name in optimizers:
        packs.train(style(packs, "apart", name, **parts[name]), batch_invariant=True)
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"apart-{name}"))


def trained_with(optimizer: str, place: int, turn: int) -> dict[str, dict[str, Any]]:
    parts = copy.deepcopy(list(TRAINED.values())[(place + turn) % len(TRAINED)])
    parts["adapter"] = {
        "rank": 2 + 2 * (place % 2),
        "target_modules": ["attn2.to_q", "mid_block.resnets.0.conv1"],
        **parts.get("adapter", {}),
    }
    averages = {"ema_decay": 0.9} if (place + turn) % 2 and not catalog.OPTIMIZERS.get(optimizer).averages else {}
    dataset = {"validation_fraction": 0.0, **parts.get("dataset", {})}
    return {**parts, "training": {"max_steps": 3, **averages}, "dataset": dataset, "checkpointing": {"every_steps": 2}}


@pytest.mark.parametrize("name", [name if name == "adamw_schedule_free" else pytest.param(name, marks=proof) for name in NAMES])
def test_a_killed_style_resumes_bit_for_bit(packs: Packs, name: str):
    packs.train(style(packs, "whole", name))
    killed = style(packs, "killed", name)
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of(f"killed-{name}"), 5))
    assert packs.train(killed).resumed_from == {job_of(f"killed-{name}"): 3}
    assert_same_bits(packs.saved(f"whole-{name}"), packs.saved(f"killed-{name}"))


def test_schedule_free_exports_its_average_and_goes_on_from_what_it_trained(packs: Packs):
    """Equation 4 of Defazio et al. 2024: x is what y = (1 - beta1) z + beta1 x was made of."""
    found = style(packs, "averages", "adamw_schedule_free", output={"precision": "fp32", "formats": ["diffusers"]})
    packs.train(found)
    saved = packs.saved("averages-adamw_schedule_free")
    exported = load_file(_file(found))
    name = next(name for name in saved.weights if name.endswith("lora_A.weight"))
    trained, z = saved.weights[name], saved.moments[f"z.{name}"]
    assert torch.allclose(exported[name], trained.lerp(z, 1 - 1 / 0.9), atol=1e-6)
    assert not torch.equal(exported[name], trained)


def test_a_rate_that_prodigy_hardly_learns_with_is_told(packs: Packs):
    found = packs.style("slow", training={"optimizer": "prodigy", "learning_rate": 1e-4, "max_steps": 1})
    packs.train(found)
    says = "training.learning_rate: prodigy finds its rate by itself, and 0.0001 is a factor of it, which is 1 as a rule"
    assert says in (Path(_file(found)).parent / "README.md").read_text()


def _file(found: Style) -> Path:
    return Path(JobLayout(found.output_uri).adapter.removeprefix("file://")) / adapter_file("diffusers", found.spec.output.name)  # pyright: ignore[reportArgumentType]
