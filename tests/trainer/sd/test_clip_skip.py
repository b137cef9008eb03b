"""Clip skip: the text encoder's layer that a style goes by, as diffusers computes it, in training, samples, cache and files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTextModel

from lorafleet import spec
from lorafleet.contract.layout import adapter_file
from lorafleet.errors import InvalidSpec, RunFailed
from tests.lorafleet.specs import SMALLEST
from tests.trainer.packs import Packs
from trainer.frozen_base import FrozenBase
from trainer.loop import trainable_together

CAPTIONS = ["a red fox", ""]
PROMPTS = {"prompts": CAPTIONS, "num_inference_steps": 3, "seed": 3}


def given(base: Path, data_set: Path, **more: object) -> dict[str, dict[str, object]]:
    return {"base_model": {"uri": f"file://{base}", **more}, "dataset": {"uri": f"file://{data_set}"}}


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_texts_are_those_of_diffusers(packs: Packs, bases: dict[str, Path], data_set: Path, clip_skip: int):
    style = packs.ready(packs.style(f"skip-{clip_skip}", **given(bases["sd1"], data_set, clip_skip=clip_skip)))
    base = FrozenBase(style.base, "fp32", torch.device("cpu"))
    ours = base.family.encode_text(base.parts, CAPTIONS)["text"]
    encoder = CLIPTextModel.from_pretrained(bases["sd1"] / "text_encoder", dtype=torch.float32)
    ids = base.parts["tokenizer"](CAPTIONS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():  # what StableDiffusionPipeline.encode_prompt does with clip_skip one less
        states = encoder(ids, output_hidden_states=True).hidden_states
        theirs = encoder.final_layer_norm(states[-clip_skip])
    assert torch.equal(ours, theirs)


def test_samples_are_drawn_with_it_and_files_say_so(packs: Packs, bases: dict[str, Path], data_set: Path):
    training = {"max_steps": 2, "learning_rate": 2e-2}
    adapter = {"text_encoder": True}
    recorder = packs.alone("skips", **given(bases["sd1"], data_set, clip_skip=2), training=training, validation=PROMPTS, adapter=adapter)
    assert list(recorder.endings.values()) == ["succeeded"]
    folder = packs.folder / "skips" / "adapter"
    with safe_open(folder / adapter_file("kohya", None), "pt") as file:
        assert file.metadata()["ss_clip_skip"] == "2"
        assert not any("encoder_layers_2" in name for name in file.keys())  # noqa: SIM118  no mapping

    encoder = CLIPTextModel.from_pretrained(bases["sd1"] / "text_encoder", num_hidden_layers=2, dtype=torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(bases["sd1"], text_encoder=encoder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(folder, weight_name=adapter_file("diffusers", None))
    ours = [np.asarray(Image.open(path), dtype=int) for path in sorted((folder / "samples").iterdir())]
    for index, prompt in enumerate(CAPTIONS):
        generator = torch.Generator("cpu").manual_seed(3 + index)
        drawn = pipeline(prompt, width=64, height=64, generator=generator, guidance_scale=5.0, num_inference_steps=3).images[0]
        assert np.abs(np.asarray(drawn, dtype=int) - ours[index]).max() <= 2


def test_what_is_cached_or_loaded_of_one_layer_is_not_anothers(packs: Packs, bases: dict[str, Path], data_set: Path):
    plain, last, skipping = (
        packs.ready(packs.style(f"{name}", **given(bases["sd1"], data_set, **more)))
        for name, more in (("plain", {}), ("last", {"clip_skip": 1}), ("skipping", {"clip_skip": 2}))
    )
    assert plain.texts_digest == last.texts_digest != skipping.texts_digest
    assert plain.latents_digest == skipping.latents_digest
    device = torch.device("cpu")
    assert FrozenBase(plain.base, "fp32", device).serves(last.base, "fp32", device)
    assert not FrozenBase(plain.base, "fp32", device).serves(skipping.base, "fp32", device)
    assert [len(styles) for styles in trainable_together([plain, last, skipping])] == [2, 1]


def test_more_than_there_are_layers_is_refused(packs: Packs, bases: dict[str, Path], data_set: Path):
    with pytest.raises(RunFailed, match=r"base_model.clip_skip: 4 is more than the 3 layers that text_encoder has") as caught:
        packs.ready(packs.style("deep", **given(bases["sd1"], data_set, clip_skip=4)))
    assert caught.value.reason == "INVALID_SPEC"


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_a_family_that_has_none_is_refused_before_anything_is_read(family: str):
    fields = {**SMALLEST, "base_model": {**SMALLEST["base_model"], "family": family, "clip_skip": 2}}
    with pytest.raises(InvalidSpec, match=f"base_model.clip_skip: is not known to {family}"):
        spec.parse(fields)


@pytest.mark.parametrize("value", [0, -1, "2", 1.5])
def test_it_is_a_number_of_layers(value: object):
    with pytest.raises(InvalidSpec, match=r"base_model.clip_skip"):
        spec.parse({**SMALLEST, "base_model": {**SMALLEST["base_model"], "clip_skip": value}})
