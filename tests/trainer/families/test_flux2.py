"""What is FLUX.2 klein's alone: its shift of times, its chat, its statistics, and how distilled bases are drawn."""

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image

from lorafleet.catalog import FAMILIES
from tests.trainer.families.styles import Families
from trainer.families.flux2 import FAMILY, shift
from trainer.families.protocol import Loading
from trainer.frozen_base import FrozenBase

Of = Callable[[str], Families]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (32, 96), (80, 80)])
def test_times_are_shifted_as_the_pipeline_shifts_many_steps(height: int, width: int):
    assert log(shift((128, height, width))) == pytest.approx(compute_empirical_mu(height * width, num_steps=200))


@pytest.mark.parametrize(("width", "size"), [(7680, "4b"), (12288, "9b")])
def test_files_say_which_klein_they_are_of(width: int, size: str):
    label = FAMILIES.get("flux2").label_of({"transformer": {"joint_attention_dim": width}})
    assert (label.architecture, label.kohya_version) == (f"Flux.2-klein-{size}", f"flux_2_klein_{size}")


def test_no_program_in_a_bases_template_is_run(families: Of, tmp_path: Path):
    base = families("flux2").bases["base"]
    tokenizer = FAMILY.load("tokenizer", base, Loading(max_tokens=64))
    assert tokenizer.chat_template != families("flux2").reference(families("flux2").style("chat")).pipeline.tokenizer.chat_template
    asked = [{"role": "user", "content": "red {{ 7 * 7 }}"}]
    told = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert told == "<|im_start|>user\nred {{ 7 * 7 }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_latents_are_normalised_by_the_statistics_that_lie_among_the_weights(families: Of):
    base = families("flux2").bases["base"]
    vae: Any = AutoencoderKLFlux2.from_pretrained(base / "vae")
    latents = FAMILY.encode_pictures({"vae": vae}, [Image.new("RGB", (64, 32), (200, 30, 90))]).mode
    assert latents.shape == (1, 16, 2, 4)
    vae.bn.running_mean.add_(1.0)
    moved = FAMILY.encode_pictures({"vae": vae}, [Image.new("RGB", (64, 32), (200, 30, 90))]).mode
    assert torch.allclose(latents - moved, (1 / (vae.bn.running_var + 1e-4).sqrt())[None, :, None, None].expand_as(moved), atol=1e-5)


@pytest.mark.parametrize(("variant", "is_distilled"), [("base", False), ("distilled", True)])
def test_a_distilled_base_is_drawn_without_guidance(families: Of, variant: str, is_distilled: bool):
    packs = families("flux2")
    frozen = FrozenBase(packs.ready(packs.style("drawn", variant)).base, "fp32", torch.device("cpu"))
    assert frozen.pipeline().config.is_distilled is is_distilled
