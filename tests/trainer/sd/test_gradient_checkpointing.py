"""Gradient checkpointing changes no bit of Stable Diffusion 1.x and 2.x; under ZeRO, in half precision and on a quantised base as well."""

from pathlib import Path
from typing import Any

import pytest

from lorafleet.contract.run_manifest import Style
from tests.trainer import recomputing
from tests.trainer.pack.test_pack_run import assert_same_bits
from tests.trainer.packs import Packs

pytestmark = [pytest.mark.timeout(600), pytest.mark.proof]


@pytest.mark.parametrize("base", ["sd1", "sd2"])
def test_recomputed_blocks_change_no_bit_of_a_pack(
    packs: Packs, bases: dict[str, Path], data_set: Path, base: str, monkeypatch: pytest.MonkeyPatch
):
    def style(name: str, **parts: Any) -> Style:
        places = {"base_model": {"uri": f"file://{bases[base]}"}, "dataset": {"uri": f"file://{data_set}", "resolution": 64}}
        return packs.style(f"{base}-{name}", **{**places, **parts})

    monkeypatch.setattr(packs, "saved", lambda name, saved=packs.saved: saved(f"{base}-{name}"))
    recomputing.assert_same_in_a_pack(packs, style, monkeypatch)


@pytest.mark.parametrize(
    ("cluster", "training"),
    [
        ({"zero_stage": 1}, {}),
        ({"zero_stage": 3}, {}),
        ({"zero_stage": 2, "offload": "cpu"}, {}),
        ({}, {"precision": "bf16"}),
        ({}, {"precision": "int8"}),
        ({}, {"precision": "nf4"}),
    ],
    ids=["zero-1", "zero-3", "offload", "bf16", "int8", "nf4"],
)
def test_recomputed_blocks_change_no_bit_however_the_base_is_held(packs: Packs, cluster: dict[str, Any], training: dict[str, Any]):
    name = "-".join(map(str, (*cluster.values(), *training.values())))
    for how, chosen in (("kept", {}), ("recomputed", recomputing.RECOMPUTES)):
        parts = {"cluster": cluster, "training": {"max_steps": 2, **training, **chosen}, "adapter": {"dropout": 0.2}}
        packs.alone(f"{how}-{name}", **parts)
    assert_same_bits(packs.saved(f"kept-{name}"), packs.saved(f"recomputed-{name}"))
