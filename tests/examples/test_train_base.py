"""The script that trains the small bases: what it writes is a base, the same for the same seed."""

import json
import shutil
from pathlib import Path

import pytest

from examples import train_base
from examples.bases import aligned
from examples.bases.pictures import FOLDER, caption, pictures_of
from examples.demo import PICTURES
from lorafleet.spec import BaseModelSpec
from trainer.prepare import base_model
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

AS_MANY_AS_COMPONENTS = 130  # that a text encoder is taught: 128


@pytest.mark.parametrize(("kind", "family", "count"), [("sdxl", "sdxl", 8), ("flow", "sd3", AS_MANY_AS_COMPONENTS)])
def test_what_it_writes_is_a_base_and_the_same_again(kind: str, family: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aligned, "STEPS", 2)
    monkeypatch.setattr(train_base, "draw", lambda *_: None)
    package = _package(tmp_path, count)
    first, again = (_trained(kind, package, tmp_path / name) for name in ("first", "again"))
    assert (first.family, first.resolution) == (family, 64)
    assert first.digest == again.digest


def test_captions_are_those_of_the_demo():
    assert caption("KISS: MAN, MAN") == "an emoji of kiss man man"
    assert caption("SQUARED CJK UNIFIED IDEOGRAPH-6307") == "an emoji of squared cjk unified ideograph 6307"


def test_flags_are_no_motifs_and_clocks_no_things(tmp_path: Path):
    package = _package(tmp_path, 2)
    assert (len(pictures_of(package)), len(pictures_of(package, things_only=True))) == (3, 2)


def _package(folder: Path, count: int) -> Path:
    """As npm's: so many things, a clock and a flag."""
    rows = [json.loads(line) for line in (PICTURES / "metadata.jsonl").read_text().splitlines()][:count]
    package = folder / "package"
    (package / FOLDER).mkdir(parents=True)
    for row in rows:
        shutil.copy(PICTURES / row["file_name"], package / FOLDER)
    told = {"has_img_google": True, "category": "Food & Drink", "subcategory": "food"}
    things = [{**told, "name": row["text"].removeprefix("an emoji of ").upper(), "image": row["file_name"]} for row in rows]
    clock, flag = {**things[0], "subcategory": "time"}, {**things[0], "category": "Flags"}
    (package / "emoji.json").write_text(json.dumps([*things, clock, flag]))
    return package


def _trained(kind: str, package: Path, out: Path) -> BaseModel:
    assert train_base.main([kind, "--out", str(out), "--pictures", str(package), "--steps", "1"]) == 0
    return base_model.inspect(BaseModelSpec(uri=out.as_uri()), Folder(out.with_name(f"{out.name}-cache").as_uri()))
