"""Texts of large encoders are kept as they were computed, and the denoiser sees the same numbers of them."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from tests.trainer.families.styles import Families
from trainer.engine import select_accelerator
from trainer.families._arriving import Sealed
from trainer.frozen_base import FrozenBase
from trainer.loop import trainable_together
from trainer.prepare import latent_cache

Of = Callable[[str], Families]


@pytest.mark.parametrize(("precision", "kept"), [("bf16", torch.bfloat16), ("fp16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_large_encoders_text_is_kept_in_what_it_was_computed_in(families: Of, precision: str, kept: torch.dtype):
    packs = families("flux")
    ready = packs.ready(packs.style(f"kept-{precision}", training={"precision": precision}))
    base = FrozenBase(ready.base, precision, select_accelerator(ready.spec.cluster))
    parts = base.for_encoding()
    encoded = latent_cache.encode(ready, packs.cache, base.family, parts, packs.group)
    (shard,) = packs.cache.child(ready.texts_digest).read_all(["00000.safetensors"]).values()
    assert {name: column.dtype for name, column in load(shard).items() if name.startswith("text.")} == {
        "text.text": kept,
        "text.pooled": torch.float32,  # CLIP's
    }
    captions = sorted({"", *ready.captions})[:8]  # as they were encoded together
    with torch.no_grad():
        computed = base.family.encode_text(parts, captions)
    for name, seen in encoded.text(captions).items():
        assert seen.dtype == torch.float32
        assert torch.equal(seen, computed[name].float()), name


def test_what_only_encodes_is_gone_before_the_denoiser_is_loaded_and_stays_away_from_a_full_cache(
    families: Of, monkeypatch: pytest.MonkeyPatch
):
    packs, load, loaded = families("flux"), FrozenBase.load_part, dict[str, "weakref.ref[Any]"]()
    there: list[str] = []  # when the denoiser is loaded

    def noted(base: FrozenBase, name: str, *more: Any, **how: Any) -> Any:
        if name == "transformer":
            there.extend(each for each, part in loaded.items() if part() is not None)
        part = load(base, name, *more, **how)
        if isinstance(part, nn.Module):
            loaded[name] = weakref.ref(part)
        return part

    monkeypatch.setattr(FrozenBase, "load_part", noted)
    packs.pack(packs.style("empty-cache", dataset={"trigger_phrase": "never said", "resolution": 48}))
    assert {"vae", "text_encoder", "text_encoder_2", "transformer"} == set(loaded)
    assert not there
    loaded.clear()
    packs.pack(packs.style("full-cache", dataset={"trigger_phrase": "never said", "resolution": 48}))
    assert set(loaded) == {"transformer"}


@pytest.mark.parametrize(("name", "precision"), [("flux", "int8"), ("flux", "nf4"), ("qwen_image", "int8"), ("zimage", "nf4")])
def test_large_encoders_may_be_quantised_apart_from_the_denoiser(families: Of, name: str, precision: str):
    packs = families(name)
    usual, small = (
        packs.ready(packs.style(f"texts-{each}", training={"precision": "bf16", **({"text_precision": each} if each else {})}))
        for each in ("", precision)
    )
    assert small.texts_digest != usual.texts_digest
    assert len(trainable_together([small, usual])) == 2
    base = FrozenBase(small.base, "bf16", select_accelerator(small.spec.cluster))
    captions = sorted({"", *small.captions})[:4]
    whole, quantised = (base.for_encoding(each.spec.text_precision) for each in (usual, small))
    with torch.no_grad():
        expected, seen = (base.family.encode_text(parts, captions)["text"].float() for parts in (whole, quantised))
    error = ((seen - expected).norm() / expected.norm()).item()
    assert 0 < error < {"int8": 0.03, "nf4": 0.5}[precision]
    large = next(part.name for part in base.family.facts.text_encoders if part.is_large)
    held = [sum(each.nbytes for each in (*parts[large].parameters(), *parts[large].buffers())) for parts in (quantised, whole)]
    assert held[0] < held[1]
    assert not any(isinstance(module, Sealed) for module in whole[large].modules())


def test_a_style_trains_with_its_texts_quantised_and_the_samples_are_drawn_so(families: Of):
    packs = families("flux")
    drawn = {"prompts": ["red"], "num_inference_steps": 1}
    recorder = packs.alone("small-texts", training={"precision": "bf16", "text_precision": "int8", "max_steps": 1}, validation=drawn)
    assert list(recorder.endings.values()) == ["succeeded"]
