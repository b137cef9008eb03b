"""Whoever trains on a distilled base hears of it: in the log before the first step, and on the model card."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafleet.contract.layout import JobLayout
from tests.trainer.families.rows import ROWS
from tests.trainer.families.styles import Families
from tests.trainer.packs import Recorder
from trainer import artifact
from trainer.checkpoint import Progress
from trainer.prepare.pack import prepare_pack

pytestmark = pytest.mark.timeout(300)
DISTILLED = [(family, variant) for family, row in ROWS.items() for variant in row.distilled]


@pytest.mark.parametrize(("family", "variant"), DISTILLED)
def test_a_distilled_base_trains_with_a_warning(
    families: Callable[[str], Families], caplog: pytest.LogCaptureFixture, family: str, variant: str
):
    packs = families(family)
    style = packs.style("distilled", variant)
    with caplog.at_level(logging.WARNING):
        (ready,) = prepare_pack([style], packs.cache.uri, Recorder())  # pyright: ignore[reportArgumentType]
    (caution,) = ready.base.facts.cautions
    assert "distilled" in caution
    assert caution in caplog.text
    artifact.commit(ready, {}, Progress(step=1), samples=None)
    card = Path(JobLayout(style.output_uri).adapter.removeprefix("file://")) / "README.md"
    assert f"> base_model.uri: {ready.base.uri}: {caution}" in card.read_text()


def test_of_another_base_there_is_nothing_to_say(families: Callable[[str], Families], caplog: pytest.LogCaptureFixture):
    packs = families("flux")
    with caplog.at_level(logging.WARNING):
        prepare_pack([packs.style("usual", "dev")], packs.cache.uri, Recorder())  # pyright: ignore[reportArgumentType]
    assert not caplog.text
