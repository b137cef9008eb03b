"""The batch demo submits what it says: sixteen styles that differ and can train in one run."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from examples import demo_batch, restyle
from examples.demo import PICTURES
from examples.demo_batch import STYLES
from examples.demo_store import Store
from lorafleet import batch_file, spec
from lorafleet.batch_file import BatchFile
from lorafleet.overlay import laid_over

STORE = Store(base_model_uri="s3://base-models/emoji-sd", dataset_uri="s3://data-sets/emoji-style", artifacts_uri="s3://artifacts")


@pytest.fixture
def submitted(tmp_path: Path) -> BatchFile:
    """The demo's batch as `lorafleet batch submit` reads it."""
    file = tmp_path / "styles.yaml"
    file.write_text(yaml.safe_dump(demo_batch.batch(STORE), sort_keys=False))
    return batch_file.load(file)


def test_the_batch_file_is_a_good_one_with_an_item_for_each_style(submitted: BatchFile):
    assert submitted.batch_id == demo_batch.BATCH
    assert [item["job_id"] for item in submitted.items] == list(STYLES)
    assert len(set(STYLES)) == 16


def test_every_style_learns_from_pictures_of_its_own(submitted: BatchFile):
    uris = [item["dataset"]["uri"] for item in submitted.items]
    assert uris[:2] == ["s3://data-sets/emoji-style/poster-mint", "s3://data-sets/emoji-style/woodcut"]
    assert len(set(uris)) == 16


def test_the_styles_can_share_a_run(submitted: BatchFile):
    specs = [
        spec.parse({name: value for name, value in laid_over(submitted.defaults, item).items() if name != "job_id"})
        for item in submitted.items
    ]
    assert {each.cluster.zero_stage for each in specs} == {0}
    assert not any(each.adapter.text_encoder for each in specs)
    assert len({(each.base_model, each.cluster, each.training, each.adapter) for each in specs}) == 1


def test_all_rows_of_the_sheet_show_the_same_prompts(submitted: BatchFile):
    assert len(submitted.defaults["validation"]["prompts"]) == 6


def test_data_sets_are_small_and_neighbours_share_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_batch, "STYLES", ("sepia", "ink"))
    assert demo_batch.draw_styles(tmp_path) == 128
    sepia, ink = ({row["file_name"] for row in restyle.read_metadata(tmp_path / style)} for style in ("sepia", "ink"))
    assert sepia.isdisjoint(ink)


def test_no_two_of_the_styles_look_alike():
    """More than the styles of restyle.py differ at least: a LoRA that learns a style half must still be told from its neighbours."""
    pictures = [Image.open(path) for path in sorted(PICTURES.glob("*.png"))[::32]]
    drawn = {style: np.stack([np.asarray(restyle.STYLES[style](picture), np.float32) for picture in pictures]) for style in STYLES}
    assert [pair for pair in combinations(STYLES, 2) if np.abs(drawn[pair[0]] - drawn[pair[1]]).mean() < 16] == []


def test_the_last_line_tells_packs_and_speed():
    report = {"styles": [{}] * 16, "packs": 1, "wall_seconds": 400.4, "styles_per_hour": 143.8}
    assert demo_batch.ending(report, 431.0) == "[bold]16 styles[/] in 1 pack, 400 s: 144 an hour; 431 s with everything around it"
