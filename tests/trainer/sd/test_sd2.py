"""Stable Diffusion 2.x is a family of its own: told from 1.x by its text, trained for what its scheduler says, labelled as what it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from lorafleet.contract.layout import adapter_file
from lorafleet.errors import RunFailed
from tests.trainer.packs import Packs
from trainer.prepare.style import PreparedStyle

PROMPTS = {"prompts": ["a red thing", ""], "num_inference_steps": 3, "seed": 7}


def given(base: Path, data_set: Path, family: str | None = "sd2") -> dict[str, dict[str, object]]:
    family_told = {} if family is None else {"family": family}
    return {"base_model": {"uri": f"file://{base}", **family_told}, "dataset": {"uri": f"file://{data_set}", "resolution": 64}}


def ready(packs: Packs, name: str, base: Path, data_set: Path, family: str | None) -> PreparedStyle:
    return packs.ready(packs.style(name, **given(base, data_set, family)))


@pytest.mark.parametrize(("base", "family"), [("sd2", "sd1"), ("sd1", "sd2")])
def test_a_base_given_as_the_other_version_is_refused_by_name(packs: Packs, bases: dict[str, Path], data_set: Path, base: str, family: str):
    with pytest.raises(RunFailed, match=f"whose configs are {base}'s .*, not {family}'s; write {base}") as caught:
        ready(packs, "refused", bases[base], data_set, family)
    assert caught.value.reason == "BASE_MODEL_OTHER_FAMILY"


@pytest.mark.parametrize(
    ("base", "version", "architecture", "prediction"),
    [("sd2", "sd_v2", "stable-diffusion-v2-512/lora", "epsilon"), ("sd2-v", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "v")],
)
def test_it_trains_and_its_files_say_which_it_is_of_and_draw_what_was_drawn(
    packs: Packs, bases: dict[str, Path], data_set: Path, base: str, version: str, architecture: str, prediction: str
):
    recorder = packs.alone(base, **given(bases[base], data_set), training={"max_steps": 3, "learning_rate": 2e-2}, validation=PROMPTS)
    assert list(recorder.endings.values()) == ["succeeded"]
    folder = packs.folder / base / "adapter"
    with safe_open(folder / adapter_file("kohya", None), "pt") as file:
        told = file.metadata()
    assert (told["ss_base_model_version"], told["ss_v2"], told["modelspec.architecture"]) == (version, "True", architecture)
    assert (told["ss_v_parameterization"], told["modelspec.prediction_type"]) == (str(prediction == "v"), prediction)

    pipeline = StableDiffusionPipeline.from_pretrained(bases[base], torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(folder, weight_name=adapter_file("diffusers", None))
    ours = [np.asarray(Image.open(path), dtype=int) for path in sorted((folder / "samples").iterdir())]
    for index, prompt in enumerate(PROMPTS["prompts"]):
        drawn = pipeline(
            prompt, width=64, height=64, generator=torch.Generator("cpu").manual_seed(7 + index), guidance_scale=5.0, num_inference_steps=3
        )
        assert np.abs(np.asarray(drawn.images[0], dtype=int) - ours[index]).max() <= 2


@pytest.mark.parametrize(("base", "family"), [("sd1", "sd1"), ("sd2-v", "sd2")])
def test_a_spec_without_family_trains_as_what_its_base_is(packs: Packs, bases: dict[str, Path], data_set: Path, base: str, family: str):
    given_style = packs.style("told", **given(bases[base], data_set, None), adapter={"target_modules": ["to_q"]})
    found = packs.ready(given_style)
    assert given_style.spec.base_model.family is None, "what was submitted stays as it is"
    assert (found.base.family, found.spec.base_model.family, found.family.name) == (family,) * 3
    named = packs.ready(packs.style("told", **given(bases[base], data_set, family), adapter={"target_modules": ["to_q"]}))
    assert (named.spec, named.texts_digest, named.key) == (found.spec, found.texts_digest, found.key)


def test_what_its_family_does_not_take_is_refused_once_the_family_is_known(packs: Packs, bases: dict[str, Path], data_set: Path):
    fields = given(bases["sd2"], data_set, None)
    with pytest.raises(RunFailed, match=r"base_model.clip_skip: is not known to sd2") as caught:
        packs.ready(packs.style("skips", **{**fields, "base_model": {**fields["base_model"], "clip_skip": 2}}))
    assert caught.value.reason == "INVALID_SPEC"
