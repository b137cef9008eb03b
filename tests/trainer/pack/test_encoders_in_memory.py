"""Which text encoders are in a worker's memory, and when."""

import gc
import weakref
from typing import Any

import pytest
from torch import nn

from tests.trainer.packs import Packs
from trainer.engine import Engine, select_accelerator
from trainer.frozen_base import FrozenBase
from trainer.group import Group


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("in-memory"), group)


@pytest.mark.parametrize("trains_text", [False, True])
def test_small_encoders_are_in_memory_while_they_are_at_work_and_to_stay_only_where_they_train(
    packs: Packs, monkeypatch: pytest.MonkeyPatch, trains_text: bool
):
    load, loaded = FrozenBase.load_part, list[tuple[str, "weakref.ref[Any]"]]()
    step, while_training = Engine.step, list[set[str]]()

    def noted(base: FrozenBase, name: str, *more: Any, **how: Any) -> Any:
        part = load(base, name, *more, **how)
        if isinstance(part, nn.Module):
            loaded.append((name, weakref.ref(part)))
        return part

    def looked(*asked: Any) -> Any:
        gc.collect()
        while_training.append({name for name, part in loaded if part() is not None})
        return step(*asked)

    monkeypatch.setattr(FrozenBase, "load_part", noted)
    monkeypatch.setattr(Engine, "step", looked)
    drawn = {"prompts": ["red"], "num_inference_steps": 1}
    style = packs.ready(
        packs.style(f"texts-{trains_text}", dataset={"trigger_phrase": "new"}, adapter={"text_encoder": trains_text}, validation=drawn)
    )
    base = FrozenBase(style.base, "fp32", select_accelerator(style.spec.cluster))
    base.load(trains_text=trains_text)
    packs.run([style], base=base).train()
    assert set.union(*while_training) == {"unet", *(["text_encoder"] if trains_text else [])}
    assert [name for name, _ in loaded].count("text_encoder") == (1 if trains_text else 3), "to encode, and twice to draw"
    base.load()
    gc.collect()
    assert {name for name, part in loaded if part() is not None} == {"unet"}
