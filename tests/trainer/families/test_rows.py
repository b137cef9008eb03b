"""Adapters tell whose input is whose by its first dimension: in no layer of a denoiser may it be another than the rows of the batch."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import nn

from tests.trainer.families.rows import ROWS
from tests.trainer.families.styles import Families
from trainer.frozen_base import FrozenBase

pytestmark = pytest.mark.timeout(300)
CAPTIONS = ["red thing", "", "a tall wide plain square thing"]


@pytest.mark.parametrize("family", ROWS)
def test_every_layer_sees_rows_first(families: Callable[[str], Families], family: str):
    packs = families(family)
    base = FrozenBase(packs.ready(packs.style("rows")).base, "fp32", torch.device("cpu"))
    parts, seen = base.for_encoding(), dict[str, int]()

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: seen.update({name: len(inputs[0])})

    denoiser = parts[base.family.facts.denoiser.name]
    for name, layer in denoiser.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_pre_hook(note(name))
    picture = Image.new("RGB", (packs.row.step * 3, packs.row.step * 2))
    with torch.no_grad():
        noisy = base.family.encode_pictures(parts, [picture]).mode.expand(len(CAPTIONS), -1, -1, -1)
        text = base.family.condition(base.family.encode_text(parts, CAPTIONS), [])
        base.family.predict(parts, noisy, torch.full((len(CAPTIONS),), 500.0), text)
    assert seen
    assert {name: number for name, number in seen.items() if number != len(CAPTIONS)} == {}
