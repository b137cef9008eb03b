"""Styles of one pack may have adapters of other methods: each learns, resumes to the bit, and is what it would be alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.demo import BASE_MODEL
from lorafleet import catalog
from lorafleet.contract.layout import JobLayout
from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.adapters.files.base_weights import weights_of
from trainer.adapters.files.reading import read_path
from trainer.adapters.files.updates import update
from trainer.adapters.start import sources
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


@proof  # of the numbers: tests/trainer/adapters/test_plain_lora.py
def test_a_plain_lora_is_written_beside_what_programs_misread(packs: Packs):
    """DoRA's, which is made of the frozen weights; who goes on from the artifact still takes what was trained."""
    trained = packs.style(
        "dora-and-plain",
        adapter={"method": "dora", "rank": 2, "target_modules": ["attn1.to_q", "conv_shortcut"]},
        training={"max_steps": 1, "learning_rate": 1e-2},
        dataset={"validation_fraction": 0.0},
        output={"plain_lora_rank": 4, "precision": "fp32", "name": "fox"},
    )
    packs.train(trained)
    folder = Path(JobLayout(trained.output_uri).adapter.removeprefix("file://"))
    told = json.loads((folder / "manifest.json").read_text())["plain_lora"]
    assert told["files"] == ["plain-lora/fox-pytorch_lora_weights.safetensors", "plain-lora/fox.safetensors"]
    assert set(told["files"]) <= json.loads((folder / "manifest.json").read_text())["files"].keys()
    dora, *plains = (read_path(folder / name) for name in ("fox-pytorch_lora_weights.safetensors", *told["files"]))
    weights = weights_of(BASE_MODEL, [module.paths[0] for module in dora.modules])
    for plain in plains:
        assert (plain.methods, plain.metadata["lorafleet.as_lora_of"]) == (("lora",), "dora")
        assert 0 < float(plain.metadata["lorafleet.as_lora_error"]) < 1
        assert float(plain.metadata["lorafleet.as_lora_error"]) == pytest.approx(told["error"], abs=1e-6)
        wanted = [update(each, weights[each.paths[0]]) for each in dora.modules]
        left = [ours - update(theirs) for ours, theirs in zip(wanted, plain.modules, strict=True)]
        squares = [sum(float(each.square().sum()) for each in its) for its in (left, wanted)]
        assert told["error"] == pytest.approx((squares[0] / squares[1]) ** 0.5, rel=1e-2)
    assert sources(f"{JobLayout(trained.output_uri).adapter}")[0].name == "fox.safetensors"
    assert "| plain LoRA | for programs that misread dora or do not load it: `plain-lora/fox-" in (folder / "README.md").read_text()
