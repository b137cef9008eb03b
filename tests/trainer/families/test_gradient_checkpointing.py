"""Gradient checkpointing changes no bit: losses, adapters and moments of every flow family, in packs, resumed."""

from collections.abc import Callable

import pytest

from tests.trainer import recomputing
from tests.trainer.families.rows import ROWS
from tests.trainer.families.styles import Families

pytestmark = pytest.mark.timeout(600)
QUICK = "flux"
Of = Callable[[str], Families]


@pytest.mark.parametrize("family", [pytest.param(name, marks=() if name == QUICK else pytest.mark.proof) for name in ROWS])
def test_recomputed_blocks_change_no_bit_of_a_pack(families: Of, family: str, monkeypatch: pytest.MonkeyPatch):
    recomputing.assert_same_in_a_pack(families(family), families(family).style, monkeypatch)


@pytest.mark.proof
@pytest.mark.parametrize("family", ROWS)
def test_a_killed_run_with_recomputed_blocks_resumes_bit_for_bit(families: Of, family: str):
    recomputing.assert_resumes(families(family), families(family).style)
