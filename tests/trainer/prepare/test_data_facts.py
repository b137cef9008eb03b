"""What training does to a data set without being asked is counted, and told in the log and on the model card."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from tests.trainer.packs import Packs
from tests.trainer.pictures import plain, saved
from trainer.families.protocol import Conditioning, Parts, Posterior
from trainer.families.sd1 import StableDiffusion1
from trainer.group import Group
from trainer.prepare import data_facts, latent_cache
from trainer.prepare.style import PreparedStyle
from trainer.storage import Folder


class Alone:
    """Stands in for a group of one worker."""

    rank, world_size = 0, 1

    def agree(self, answer: Any) -> Any:
        return answer

    def barrier(self) -> None: ...


class Counting(StableDiffusion1):
    """Embeds by counting; a word is a token, and four of them are taken."""

    def num_tokens(self, parts: Parts, captions: Sequence[str]) -> list[int]:
        return [len(caption.split()) for caption in captions]

    def encode_text(self, parts: Parts, captions: Sequence[str]) -> Conditioning:
        _ = parts["text_encoder"]
        return {"text": torch.tensor([[[len(caption.split())]] * 4 for caption in captions]).float()}

    def encode_pictures(self, parts: Parts, pictures: Sequence[Image.Image]) -> Posterior:
        _ = parts["vae"]
        mode = torch.tensor([[[[float(picture.width)]]] for picture in pictures])
        return Posterior(mode, torch.zeros_like(mode))


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedStyle:
    data = tmp_path / "data"
    data.mkdir()
    for name, content in {
        "a.png": plain((64, 64)),
        "b.png": saved(Image.new("RGB", (64, 64)), icc_profile=b"none"),
        "strip|.png": plain((640, 64)),
        "half.jpg": plain((64, 64), file_format="JPEG")[:-300],
        "._a.png": b"x",
        "none.png": plain((64, 64)),
    }.items():
        (data / name).write_bytes(content)
    for name, caption in {"a": "one two", "b": "one two three four five", "strip|": "one two three four", "half": "x"}.items():
        (data / f"{name}.txt").write_text(caption)
    fields = {"uri": data.as_uri(), "resolution": 64, "max_corrupt_fraction": 0.5, "on_missing_caption": "skip"}
    packs = Packs(tmp_path, Group(rank=0, world_size=1))
    ready = packs.ready(packs.style("fox", dataset=fields))
    return replace(ready, base=replace(ready.base, facts=replace(ready.base.facts, max_tokens=4)))


class Loading(dict[str, Any]):
    """Parts that are loaded by being looked up."""

    def __missing__(self, part: str) -> Any:
        return None


class NotLoading(dict[str, Any]):
    def __missing__(self, part: str) -> Any:
        pytest.fail(f"{part} is loaded, although the cache is full")


def encoded(style: PreparedStyle, cache: Path, parts: Parts) -> latent_cache.Encoded:
    group = cast(Group, Alone())
    return latent_cache.encode(style, Folder(cache.as_uri()), Counting(), parts, group)


def test_the_log_counts_what_was_left_out_and_cut_away(prepared: PreparedStyle):
    facts = data_facts.for_log(prepared)
    assert "half.jpg is broken" in str(facts["skipped"])
    assert facts["without_caption"] == "none.png"
    assert facts["passed_over"] == {"hidden files, and what systems and tools leave behind": "1: ._a.png"}
    assert facts["profiles_ignored"] == "b.png"
    assert "strip|.png (" in str(cast(dict[str, Any], facts["cropped_share"])["over_half"])
    json.dumps(facts)


def test_the_card_tells_what_cropping_and_the_text_encoder_cut(prepared: PreparedStyle, tmp_path: Path):
    style = replace(prepared, cut_captions=encoded(prepared, tmp_path / "cache", Loading()).cut(prepared))
    card = "\n".join(data_facts.for_card(style))
    assert "| captions cut | 1 have more than the 4 tokens that the text encoder takes: b.png (5) |" in card
    assert "| data set | 3 pictures" in card
    assert "1 skipped" in card
    assert "on average, and at most" in card
    assert "strip\\|.png" in card


def test_what_is_cut_is_known_from_the_cache_too_with_nothing_loaded(prepared: PreparedStyle, tmp_path: Path):
    first = encoded(prepared, tmp_path / "cache", Loading())

    again = encoded(prepared, tmp_path / "cache", NotLoading())
    assert again.cut(prepared) == first.cut(prepared)
    assert again.cut(prepared).num_tokens == {"b.png": 5}


def test_masks_that_are_trained_on_as_pictures_are_told(prepared: PreparedStyle):
    assert prepared.cautions == ()
    mask = replace(prepared.data_set.pictures[0], path="a.mask.png")
    [told] = replace(prepared, data_set=replace(prepared.data_set, pictures=(*prepared.data_set.pictures, mask))).cautions
    assert told.startswith("dataset.masks: 1 pictures are called as masks are, and trained on: a.mask.png")


def test_a_picture_that_changed_since_it_was_looked_at_fails_its_style_by_name(prepared: PreparedStyle, tmp_path: Path):
    (tmp_path / "data/a.png").write_bytes(b"no longer a picture")
    with pytest.raises(Exception, match=r"a.png is no picture .* it has changed since the job started"):
        encoded(prepared, tmp_path / "cache", Loading())
