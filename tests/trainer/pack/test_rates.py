"""Tensors of one adapter at rates of their own: resumed to the bit, and in a pack what it is alone."""

from typing import Any

import pytest

from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof

RAISED: dict[str, Any] = {"training": {"lora_plus_ratio": 16.0, "learning_rate": 1e-4}}
OWN: list[dict[str, Any]] = [
    {"part": "unet", "learning_rate": 2e-4, "lr_scheduler": "constant"},
    {"pattern": "mid_block", "rank": 3, "alpha": 1.0, "dropout": 0.2},
    {"pattern": "up_blocks.*attn2", "learning_rate": 1e-3, "dropout": 0.1},
]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("rates"), group)


def raised(optimizer: str) -> dict[str, Any]:
    schedule = "constant" if optimizer == "adamw_schedule_free" else "cosine_with_restarts"
    return {"training": {**RAISED["training"], "optimizer": optimizer, "lr_scheduler": schedule}, "adapter": {"overrides": OWN}}


@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(name, marks=proof) for name in ("adamw_schedule_free", "adamw_8bit", "came"))]
)
def test_it_resumes_to_the_bit_and_is_in_a_pack_what_it_is_alone(packs: Packs, optimizer: str):
    parts = raised(optimizer)
    together, apart = f"together-{optimizer}", f"apart-{optimizer}"
    company = [packs.style(f"plain-{optimizer}"), packs.style(together, **parts)]
    assert set(packs.train(*company).endings.values()) == {"succeeded"}
    with pytest.raises(Killed):
        packs.train(packs.style(apart, **parts), recorder=dies_at(job_of(apart), 5), batch_invariant=True)
    assert packs.train(packs.style(apart, **parts), batch_invariant=True).resumed_from == {job_of(apart): 3}
    assert_same_bits(packs.saved(together), packs.saved(apart))
