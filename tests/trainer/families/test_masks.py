"""Masks lie over the latents of every family as over the picture, also of those whose tokens are squares of latents."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.trainer.families.styles import Families
from trainer.pack.batch import assemble

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def masked(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The data set, of whose pictures the left half counts."""
    folder = tmp_path_factory.mktemp("masked") / "data"
    shutil.copytree(data_set, folder)
    for picture in sorted(folder.glob("??.png")):
        width, height = Image.open(picture).size
        mask = Image.new("L", (width, height))
        mask.paste(255, (0, 0, width // 2, height))
        mask.save(folder / f"{picture.stem}.mask.png")
    return f"file://{folder}"


@pytest.mark.parametrize("family", ["flux", "flux2", "qwen_image"])
def test_nothing_of_what_is_predicted_outside_of_a_mask_is_learned(families: Callable[[str], Families], masked: str, family: str):
    packs = families(family)
    run = packs.pack(packs.style("masked", dataset={"uri": masked, "masks": "files"}), packs.style("plain"), batch_invariant=True)
    for member in run.members:
        member.draw(rank=0, world_size=1)
    for each in run._passes(run.members):
        batch = assemble(each, run.members, run.base.family, run.base.device)
        predicted = torch.zeros_like(batch.noisy, requires_grad=True)
        (batch.losses(predicted, run.members) * batch.shares).sum().backward()
        assert predicted.grad is not None
        half = predicted.shape[-1] // 2
        for row, style in enumerate(batch.styles):
            left, right = predicted.grad[row, ..., :half], predicted.grad[row, ..., half + 1 :]
            if style >= 0:
                is_masked = run.members[style].is_masked
                assert left.abs().max() > 0
                assert bool(right.abs().max() == 0) is is_masked
