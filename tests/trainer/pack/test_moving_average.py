"""A style with a moving average is drawn, judged and exported by it, resumes to the bit, and is in a pack what it is alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)

AVERAGED: dict[str, Any] = {"training": {"ema_decay": 0.9, "learning_rate": 1e-2}, "output": {"precision": "fp32"}}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("averages"), group)


def test_it_is_kept_exported_and_gone_on_from_to_the_bit(packs: Packs):
    packs.train(whole := packs.style("whole", **AVERAGED))
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **AVERAGED), recorder=dies_at(job_of("killed"), 5))
    assert packs.train(packs.style("killed", **AVERAGED)).resumed_from == {job_of("killed"): 3}
    assert_same_bits(packs.saved("whole"), packs.saved("killed"))
    saved = packs.saved("whole")
    for name, tensor in exported(whole).items():
        assert torch.equal(tensor, saved.moments[f"ema.{name}"])
    assert not torch.equal(saved.moments[f"ema.{name}"], saved.weights[name])


def test_what_is_asked_for_is_what_is_judged(packs: Packs):
    """The adapters are the same; at the base, too, they are judged alike."""
    packs.train(packs.style("by-average", **AVERAGED))
    trained = packs.style("as-trained", training=AVERAGED["training"], output={**AVERAGED["output"], "weights": "trained"})
    packs.train(trained)
    one, other = packs.saved("by-average"), packs.saved("as-trained")
    assert one.moments.keys() == other.moments.keys()
    for name, tensor in exported(trained).items():
        assert torch.equal(tensor, other.weights[name])
        assert torch.equal(tensor, one.weights[name])
    assert "| weights | moving average, decay 0.9 |" in card(packs, "by-average")
    assert "moving average" not in card(packs, "as-trained")
    judged, beside = (metadata(packs, name) for name in ("by-average", "as-trained"))
    assert judged["lorafleet.held_out_loss_base"] == beside["lorafleet.held_out_loss_base"]
    assert judged["lorafleet.held_out_loss"] != beside["lorafleet.held_out_loss"]
    assert judged["lorafleet.ema_decay"] == "0.9"
    assert "lorafleet.ema_decay" not in beside


@pytest.mark.proof
def test_in_a_pack_it_is_what_it_is_alone(packs: Packs):
    company = [packs.style("plain"), packs.style("together", **AVERAGED), packs.style("beside", training={"ema_decay": 0.5, "seed": 2})]
    assert set(packs.train(*company).endings.values()) == {"succeeded"}
    packs.train(packs.style("apart", **AVERAGED), batch_invariant=True)
    assert_same_bits(packs.saved("together"), packs.saved("apart"))


def exported(style: Style) -> dict[str, torch.Tensor]:
    return load_file(Path(JobLayout(style.output_uri).adapter.removeprefix("file://")) / adapter_file("diffusers", None))


def artifact(packs: Packs, name: str) -> Path:
    return Path(JobLayout(f"file://{packs.folder}/{name}").adapter.removeprefix("file://"))


def card(packs: Packs, name: str) -> str:
    return (artifact(packs, name) / "README.md").read_text()


def metadata(packs: Packs, name: str) -> dict[str, str]:
    with safe_open(artifact(packs, name) / adapter_file("kohya", None), "pt") as file:
        return file.metadata()
