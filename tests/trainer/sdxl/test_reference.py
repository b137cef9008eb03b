"""The independent loop is checked too, against diffusers' own pipeline and scheduler: what SDXL is compared with must be right."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from safetensors.torch import load_file

from tests.trainer.sdxl import tiny_base
from tests.trainer.sdxl.reference import conditioning, schedule, text_outputs


@pytest.mark.parametrize("objective", tiny_base.SCHEDULERS)
def test_what_is_left_of_a_picture_at_each_time_is_what_the_papers_say(bases: dict[str, Path], objective: str):
    config = json.loads((bases[objective] / "scheduler" / "scheduler_config.json").read_text())
    betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if objective == "v_zero_snr":  # Lin et al. 2024, algorithm 1: shifted to end at zero, scaled to begin where it did
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    is_v, alphas = schedule(bases[objective])
    assert is_v == (objective == "v_zero_snr")
    assert torch.allclose(alphas.sqrt().double(), root, rtol=0, atol=1e-5)
    assert (float(alphas[-1]) == 0) == is_v


def test_captions_condition_as_prompts_do_in_diffusers_pipeline(bases: dict[str, Path]):
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(bases["epsilon"], add_watermarker=False)
    captions = ["red round thing 3", "a very tall " * 20, ""]
    with torch.no_grad():
        encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
        text, pooled = conditioning(text_outputs([pipeline.tokenizer, pipeline.tokenizer_2], encoders, captions))
        theirs, _, theirs_pooled, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    assert torch.equal(text, theirs)
    assert torch.equal(pooled, theirs_pooled)
    assert text.shape == (3, tiny_base.MAX_TOKENS, sum(tiny_base.WIDTHS))


def test_the_base_is_the_same_each_time_and_has_no_weight_at_zero(bases: dict[str, Path], tmp_path: Path):
    again = tiny_base.write(tmp_path / "again")
    files = sorted(path.relative_to(again) for path in again.rglob("*.safetensors"))
    assert len(files) == 4
    for path in files:
        ours, theirs = load_file(again / path), load_file(bases["epsilon"] / path)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        assert all(bool(tensor.any()) for tensor in ours.values())
