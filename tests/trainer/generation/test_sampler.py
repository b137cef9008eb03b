"""Pictures of the sampler are those of diffusers' pipeline with the same files, and have the same bits alone and in a grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from examples.demo import BASE_MODEL
from lorafleet import generation_schedulers, objectives
from lorafleet.catalog import FAMILIES
from tests.trainer.families import zimage
from tests.trainer.generation.conftest import Loaded, loaded
from tests.trainer.sdxl import tiny_base
from trainer.generation import files
from trainer.generation.sampler import How, Picture, rows_at_once
from trainer.generation.stacks import Uses

HOW = How(width=64, height=64, num_inference_steps=2, guidance_scale=4.0)
FLOW_BASE = BASE_MODEL.parent / "emoji-flow"
PROMPTS = ("an emoji of cat face", "a red thing")


def uses(of: Loaded, **weights: float) -> Uses:
    uris = {name: (of.adapters / f"{name}.safetensors").as_uri() for name in weights}
    found, wrong = files.look(list(uris.values()), of.base, of.sampler.layers)
    assert not wrong
    return [(files.read(uri, of.base, of.sampler.layers, found[uri].digest), weights[name]) for name, uri in uris.items()]


def diffusers_picture(pipeline: Any, adapters: Path, weights: dict[str, float], prompt: str, seed: int, **how: Any) -> Image.Image:
    """As people draw it."""
    for name in weights:
        pipeline.load_lora_weights(str(adapters), weight_name=f"{name}.safetensors", adapter_name=name)
    if weights:
        pipeline.set_adapters(list(weights), adapter_weights=list(weights.values()))
    generator = torch.Generator("cpu").manual_seed(seed)
    asked = {"width": 64, "height": 64, "num_inference_steps": 2, "guidance_scale": 4.0, **how}
    picture = pipeline(prompt=prompt, generator=generator, **asked).images[0]
    pipeline.unload_lora_weights()
    return picture


def difference(ours: Image.Image, theirs: Image.Image) -> int:
    return int(np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max())


def bits(pictures: Sequence[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_pictures_are_those_of_diffusers_with_the_same_files_and_weights(emoji: Loaded):
    """Stable Diffusion 1; several adapters, DoRA, text encoders' layers, negative prompts and other schedulers."""
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(BASE_MODEL, safety_checker=None, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    given: list[dict[str, float]] = [{"lora": 1.0}, {"lora": 0.6, "other": -0.4}, {"dora": 0.5}, {}]
    rows = [
        Picture(prompt=PROMPTS[0], negative_prompt="a blue thing", seed=number, uses=uses(emoji, **each))
        for number, each in enumerate(given)
    ]
    euler = generation_schedulers.of(objectives.DIFFUSION)["euler_ancestral"]
    ours = emoji.sampler.draw(rows, How(**{**vars(HOW), "scheduler": euler}))
    pipeline.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    for number, (each, picture) in enumerate(zip(given, ours, strict=True)):
        theirs = diffusers_picture(pipeline, emoji.adapters, each, PROMPTS[0], number, negative_prompt="a blue thing")
        assert difference(picture, theirs) <= 2
    assert difference(ours[0], ours[3]) > 20  # the adapters do something


@pytest.mark.proof
def test_pictures_of_two_text_encoders_and_sizes_are_those_of_diffusers(tmp_path: Path):
    base = tiny_base.write(tmp_path / "sdxl")
    of = loaded(base, tmp_path)
    pipeline: Any = diffusers.StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    given: list[dict[str, float]] = [{"lora": 0.7}, {"other": 1.0, "lora": 0.5}]
    ours = of.sampler.draw([Picture(prompt=PROMPTS[1], seed=3, uses=uses(of, **each)) for each in given], HOW)
    for each, picture in zip(given, ours, strict=True):
        assert difference(picture, diffusers_picture(pipeline, tmp_path, each, PROMPTS[1], 3)) <= 2
    assert difference(*ours) > 2


@pytest.mark.proof
def test_pictures_of_a_flow_are_those_of_diffusers(tmp_path: Path):
    of = loaded(FLOW_BASE, tmp_path, "diffusers")
    pipeline: Any = diffusers.StableDiffusion3Pipeline.from_pretrained(FLOW_BASE, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    ours = of.sampler.draw([Picture(prompt=PROMPTS[0], seed=3, uses=uses(of, lora=0.7)), Picture(prompt=PROMPTS[0], seed=3)], HOW)
    longest = {"max_sequence_length": pipeline.tokenizer_3.model_max_length if pipeline.tokenizer_3 else 256}
    assert difference(ours[0], diffusers_picture(pipeline, tmp_path, {"lora": 0.7}, PROMPTS[0], 3, **longest)) <= 2
    assert difference(ours[1], diffusers_picture(pipeline, tmp_path, {}, PROMPTS[0], 3, **longest)) <= 2
    assert difference(*ours) > 2


def test_a_picture_has_the_same_bits_alone_and_in_a_grid(emoji: Loaded):
    rows = 4  # of whatever number, where it is the same
    sets: list[dict[str, float]] = [{"lora": 1.0}, {"other": 0.5}, {"lora": 0.3, "dora": 1.0}, {}]
    grid = [Picture(prompt=PROMPTS[number % 2], seed=number, uses=uses(emoji, **each)) for number, each in enumerate(sets)]
    together = bits(emoji.sampler.draw(grid, HOW, num_rows=rows))
    for number in (1, 2):
        assert bits(emoji.sampler.draw([grid[number]], HOW, num_rows=rows)) == [together[number]]
    assert bits(emoji.sampler.draw(grid[::-1], HOW, num_rows=rows)) == together[::-1]


def test_large_pictures_are_drawn_alone():
    """Their rows fill a processor, and a lone one is to cost no more."""
    assert [rows_at_once(side, side, FAMILIES.get("sd1")) for side in (64, 128, 512, 1024)] == [8, 2, 1, 1]


def test_rows_that_no_layer_can_tell_apart_are_drawn_alone(tmp_path: Path):
    """Z-Image's pipeline lays the tokens of all rows end to end, those of guidance too."""
    of = loaded(zimage.write(tmp_path / "base"), tmp_path, "diffusers", ("attention.to_q", "feed_forward.w1", "cap_embedder.1"))
    pipeline: Any = diffusers.ZImagePipeline.from_pretrained(tmp_path / "base", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert rows_at_once(64, 64, of.sampler.family) == 1
    (ours,) = of.sampler.draw([Picture(prompt=PROMPTS[1], seed=3, uses=uses(of, lora=0.7))], HOW)
    longest = {"max_sequence_length": of.sampler._guidance(1.0)["max_sequence_length"]}
    assert difference(ours, diffusers_picture(pipeline, tmp_path, {"lora": 0.7}, PROMPTS[1], 3, **longest)) <= 2
    assert difference(ours, diffusers_picture(pipeline, tmp_path, {}, PROMPTS[1], 3, **longest)) > 2
