"""A style with masks in a pack: what it learns is what it learns alone, and its neighbours without masks lose no bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open

from examples.demo import PICTURES
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("masks"), group)


@pytest.fixture(scope="module")
def masked(packs: Packs) -> dict[str, Any]:
    """A data set of a few pictures, each with a mask that leaves its right half."""
    folder = packs.folder / "data"
    folder.mkdir()
    for picture in sorted(Path(PICTURES).glob("*.png"))[:6]:
        shutil.copy(picture, folder)
        size = Image.open(picture).size
        mask = Image.new("L", size)
        mask.paste(255, (size[0] // 2, 0, *size))
        mask.save(folder / f"{picture.stem}.mask.png")
        (folder / f"{picture.stem}.txt").write_text("a thing")
    return {"uri": f"file://{folder}", "masks": "files", "validation_fraction": 0.2}


def test_masked_and_whole_styles_train_in_company_as_alone(packs: Packs, masked: dict[str, Any]):
    parts: dict[str, Any] = {
        "plain": {"dataset": {**masked, "masks": "none", "on_missing_caption": "skip"}, "training": {"max_steps": 2}},  # masks have none
        "masked": {"dataset": masked, "objective": {"mask_floor": 0.1}, "training": {"max_steps": 2}},
    }
    packs.train(*(packs.style(f"together-{name}", **each) for name, each in parts.items()))
    for name, each in parts.items():
        packs.train(packs.style(f"apart-{name}", **each), batch_invariant=True)
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"apart-{name}"))


def test_a_killed_style_resumes_bit_for_bit_and_says_that_it_was_masked(packs: Packs, masked: dict[str, Any]):
    packs.train(packs.style("whole", dataset=masked))
    killed = packs.style("killed", dataset=masked)
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of("killed"), 5))
    assert packs.train(killed).resumed_from == {job_of("killed"): 3}
    assert_same_bits(packs.saved("whole"), packs.saved("killed"))
    folder = packs.folder / "killed" / "adapter"
    assert "| masks | of 6 of 6 pictures (files) |" in (folder / "README.md").read_text()
    [kohya] = [path for path in folder.glob("*.safetensors") if "pytorch_lora" not in path.name]
    with safe_open(kohya, "pt") as file:
        assert file.metadata()["ss_masked_loss"] == "True"
