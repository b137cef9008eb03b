"""An SDXL base is found whole or refused with what is wrong; what is cached of it is named by all that went into it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from tests.trainer.prepare.test_base_model import edit
from tests.trainer.sdxl import tiny_base
from tests.trainer.sdxl.styles import Sdxl

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def copy(tmp_path: Path, bases: dict[str, Path]) -> Path:
    return Path(shutil.copytree(bases["epsilon"], tmp_path / "base"))


def refusal(sdxl: Sdxl, base: Path, family: str = "sdxl") -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        sdxl.ready(sdxl.style_on(base, "refused", base_model={"family": family}))
    assert not caught.value.retryable
    return caught.value


def test_it_says_what_it_needs_to_be_trained(sdxl: Sdxl):
    found = sdxl.ready(sdxl.style("found")).base
    assert (found.family, found.resolution, found.resolution_step, found.vae_factor) == ("sdxl", 64, 16, 4)
    assert found.facts.max_tokens == tiny_base.MAX_TOKENS
    assert {path.partition("/")[0] for path in found.files} == {
        *("model_index.json", "unet", "vae", "scheduler"),
        *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    }


def test_an_sdxl_given_as_sd1_is_refused(sdxl: Sdxl, copy: Path):
    error = refusal(sdxl, copy, "sd1")
    assert error.reason == "BASE_MODEL_OTHER_FAMILY"
    assert "StableDiffusionXLPipeline" in error.message
    assert "sd1" in error.message


def test_an_sd1_given_as_sdxl_is_refused(sdxl: Sdxl):
    error = refusal(sdxl, BASE_MODEL)
    assert error.reason == "BASE_MODEL_OTHER_FAMILY"
    assert "StableDiffusionPipeline" in error.message
    assert "sdxl" in error.message


def test_an_sd1_that_calls_itself_sdxl_is_refused(sdxl: Sdxl, tmp_path: Path):
    base = Path(shutil.copytree(BASE_MODEL, tmp_path / "liar"))
    edit(base / "model_index.json", _class_name="StableDiffusionXLPipeline")
    assert refusal(sdxl, base).reason.startswith("BASE_MODEL_")


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_a_part_that_is_missing_is_named(sdxl: Sdxl, copy: Path, part: str):
    shutil.rmtree(copy / part)
    error = refusal(sdxl, copy)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"{part}/" in error.message


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_an_index_that_does_not_name_a_part_is_refused(sdxl: Sdxl, copy: Path, part: str):
    index = json.loads((copy / "model_index.json").read_text())
    del index[part]
    (copy / "model_index.json").write_text(json.dumps(index))
    error = refusal(sdxl, copy)
    assert error.reason.startswith("BASE_MODEL_")
    assert part in error.message


@pytest.mark.parametrize("kind", ["sample", "flow_prediction", "V_prediction", 1])
def test_an_objective_that_is_not_trained_is_refused(sdxl: Sdxl, copy: Path, kind: object):
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type=kind)
    error = refusal(sdxl, copy)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert "scheduler_config.json" in error.message
    assert "prediction_type" in error.message


def _changed(part: str, **values: Any) -> Callable[[Path], None]:
    return lambda base: edit(base / part / "config.json", **values)


MISFITS = {
    "text-of-one-encoder-alone": ("unet", _changed("unet", cross_attention_dim=tiny_base.WIDTHS[1])),
    "another-width-of-the-second": ("", _changed("text_encoder_2", hidden_size=48)),
    "another-pooled-width": ("", _changed("text_encoder_2", projection_dim=64)),
    "no-added-conditioning": ("unet", _changed("unet", addition_embed_type=None)),
    "another-added-conditioning": ("unet", _changed("unet", addition_embed_type="image")),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_parts_that_do_not_fit_are_refused_before_anything_is_loaded(sdxl: Sdxl, copy: Path, misfit: str):
    named, change = MISFITS[misfit]
    change(copy)
    error = refusal(sdxl, copy)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert f"{named}/config.json" in error.message


def test_a_refiner_is_no_sdxl_base(sdxl: Sdxl, copy: Path):
    """It has the second encoder alone, and is conditioned on a score."""
    index = json.loads((copy / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None], "tokenizer": [None, None]}
    (copy / "model_index.json").write_text(json.dumps(index))
    assert refusal(sdxl, copy).reason == "BASE_MODEL_OTHER_FAMILY"


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
def test_texts_of_another_encoder_are_not_taken_from_the_cache(sdxl: Sdxl, copy: Path, part: str):
    path = copy / part / "model.safetensors"
    weights = {name: tensor * 1.5 if tensor.ndim > 1 else tensor for name, tensor in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    ours, theirs = sdxl.ready(sdxl.style("ours")), sdxl.ready(sdxl.style_on(copy, "theirs"))
    assert ours.latents_digest == theirs.latents_digest
    assert ours.texts_digest != theirs.texts_digest


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_texts_of_another_tokenizer_are_not_taken_from_the_cache(sdxl: Sdxl, copy: Path, part: str):
    edit(copy / part / "tokenizer_config.json", pad_token="a")
    assert sdxl.ready(sdxl.style("ours")).texts_digest != sdxl.ready(sdxl.style_on(copy, "theirs")).texts_digest
