"""The held-out loss: what is no number of it is told, and stands in no checkpoint."""

import logging
import math

import pytest

from tests.trainer.pack.test_pack_run import Killed, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group
from trainer.pack import evaluation

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("evaluated"), group)


@pytest.mark.parametrize("loss", [math.inf, pytest.param(math.nan, marks=pytest.mark.proof)])
def test_a_held_out_loss_that_is_no_number_is_told_and_keeps_no_run_from_resuming(
    packs: Packs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loss: float
):
    monkeypatch.setattr(evaluation, "held_out_loss", lambda pack, member: loss)
    name = f"held-out-{loss}"
    with caplog.at_level(logging.WARNING), pytest.raises(Killed):
        packs.train(packs.style(name), recorder=dies_at(job_of(name), 5))
    assert f"the held-out loss after step 0 is {loss}, and not recorded" in caplog.text
    again = packs.style(name)
    recorder = packs.train(again)
    assert (recorder.resumed_from, recorder.endings) == ({job_of(name): 3}, {again.job: "succeeded"})
