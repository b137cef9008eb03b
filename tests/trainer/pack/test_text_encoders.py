"""Styles that train text encoders and styles that do not are in one pack, and are what they are alone."""

from typing import Any

import pytest

from tests.trainer.pack.test_pack_run import assert_same_bits
from tests.trainer.packs import Packs, Recorder
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)

TEXT: dict[str, Any] = {"adapter": {"text_encoder": True, "dropout": 0.1}, "training": {"max_steps": 3}}
PLAIN: dict[str, Any] = {"training": {"max_steps": 3, "caption_dropout": 0.5}}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("texts"), group)


def test_in_one_pack_each_is_what_it_is_alone(packs: Packs):
    company = [packs.style("plain", **PLAIN), packs.style("text", **TEXT)]
    assert set(packs.train(*company).endings.values()) == {"succeeded"}
    for name, parts in (("plain", PLAIN), ("text", TEXT)):
        packs.train(packs.style(f"{name}-apart", **parts), batch_invariant=True)
        assert_same_bits(packs.saved(name), packs.saved(f"{name}-apart"))
    assert any(name.startswith("text_encoder.") for name in packs.adapter("text"))


@pytest.mark.proof
def test_one_that_trains_text_may_join_others(packs: Packs):
    packs.train(packs.style("lone", **TEXT), batch_invariant=True)
    recorder = Recorder()
    recorder.joins_at = {1: packs.style("joins", **TEXT)}
    packs.train(packs.style("first", **PLAIN), recorder=recorder, batch_invariant=True)
    assert set(recorder.endings.values()) == {"succeeded"}
    assert_same_bits(packs.saved("joins"), packs.saved("lone"))
    packs.train(packs.style("first-apart", **PLAIN), batch_invariant=True)
    assert_same_bits(packs.saved("first"), packs.saved("first-apart"))
