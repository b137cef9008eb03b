"""Styles of one pack may have adapters of other methods: each learns, resumes to the bit, and is what it would be alone."""

from typing import Any

import pytest

from lorafleet import catalog
from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof

NAMES = [name for name in catalog.METHODS.names() if not name.startswith("toy")]
TARGETS = ["to_q", "ff.net.2", "conv1", "proj_in"]  # linear layers, and convolutions of 3 x 3 and of 1 x 1


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("methods"), group)


def style(packs: Packs, prefix: str, name: str, **adapter: Any) -> Style:
    """Short, and without held-out pictures: what is asked for are bits."""
    has_alpha = catalog.METHODS.get(name).has_alpha
    return packs.style(
        f"{prefix}-{name}",
        adapter={"method": name, "rank": 4, "target_modules": TARGETS, **({"alpha": 2.0} if has_alpha else {}), **adapter},
        training={"max_steps": 3},
        dataset={"validation_fraction": 0.0},
        checkpointing={"every_steps": 2},
    )


@proof  # of one layer of each kind: tests/trainer/adapters/test_bits.py
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_each_trains_in_company_as_alone(packs: Packs, dropout: float):
    company = [style(packs, f"together-{dropout}", name, dropout=dropout) for name in NAMES]
    assert set(packs.train(*company).endings.values()) == {"succeeded"}
    for name in NAMES:
        packs.train(style(packs, f"apart-{dropout}", name, dropout=dropout), batch_invariant=True)
        assert_same_bits(packs.saved(f"together-{dropout}-{name}"), packs.saved(f"apart-{dropout}-{name}"))


@pytest.mark.parametrize("name", [name if name == "lokr" else pytest.param(name, marks=proof) for name in NAMES])
def test_a_killed_style_resumes_bit_for_bit(packs: Packs, name: str):
    packs.train(style(packs, "whole", name))
    killed = style(packs, "killed", name)
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of(f"killed-{name}"), 3))
    assert packs.train(killed).resumed_from == {job_of(f"killed-{name}"): 2}
    assert_same_bits(packs.saved(f"whole-{name}"), packs.saved(f"killed-{name}"))


@proof
@pytest.mark.parametrize("name", NAMES)
def test_two_of_one_method_train_in_a_pack_as_alone(packs: Packs, name: str):
    styles = {how: [style(packs, f"{how}-{place}", name) for place in "ab"] for how in ("pack", "alone")}
    packs.train(*styles["pack"])
    for each in styles["alone"]:
        packs.train(each)
    for place in "ab":
        assert packs.losses(f"pack-{place}-{name}") == pytest.approx(packs.losses(f"alone-{place}-{name}"), rel=1e-5)


def test_presets_and_convolutions_train_together(packs: Packs):
    """Every linear layer of the blocks, beside a style on convolutions of 3 x 3 and of 1 x 1."""
    short: dict[str, Any] = {"training": {"max_steps": 1}, "dataset": {"validation_fraction": 0.0}}
    wide = packs.style("wide", adapter={"target_modules": list(catalog.FAMILIES.get("sd1").presets["all-linear"])}, **short)
    convolved = packs.style(
        "convolved", adapter={"target_modules": ["conv1", "conv2", "conv_shortcut", "resnets.*.time_emb_proj"]}, **short
    )
    assert set(packs.train(wide, convolved).endings.values()) == {"succeeded"}
    ends = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in packs.adapter("wide")}
    assert ends >= {"to_q", "to_k", "to_v", "0", "proj", "2", "time_emb_proj"}
    shapes = {tuple(tensor.shape[2:]) for name, tensor in packs.adapter("convolved").items() if "lora_A" in name}
    assert shapes == {(3, 3), (1, 1), ()}
    assert all(tensor.any() for name, tensor in packs.adapter("convolved").items() if "lora_B" in name), "each has learnt"
