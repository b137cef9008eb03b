"""An SDXL base is found whole by its family's facts, or refused by name; what is cached and written of it is that of all its parts."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from examples.demo import BASE_MODEL
from lorafleet.catalog import FAMILIES
from lorafleet.errors import RunFailed
from lorafleet.spec import AdapterSpec, BaseModelSpec
from tests.trainer.packs import Packs
from tests.trainer.prepare.sdxl_base import ATTENTION, POOLED, TIME_WIDTH, write_sdxl
from tests.trainer.prepare.test_base_model import edit
from trainer import artifact_facts
from trainer.adapters.formats.kohya import kohya_module
from trainer.checkpoint import Progress
from trainer.prepare import base_model, spec_on_base
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_sdxl(tmp_path / "base")


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path, None)  # pyright: ignore[reportArgumentType]: nothing trains


def inspect(folder: Path, family: str = "sdxl") -> BaseModel:
    return base_model.inspect(BaseModelSpec(uri=f"file://{folder}", family=family), Folder(f"file://{folder.parent / 'cache'}"))


def refusal(folder: Path, family: str = "sdxl") -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        inspect(folder, family)
    return caught.value


def test_it_is_found_whole_with_all_its_parts(base: Path):
    found = inspect(base)
    assert (found.resolution, found.resolution_step, found.vae_factor, found.facts.max_tokens) == (1024, 32, 8, 60)
    folders = {path.partition("/")[0] for path in found.files} - {"model_index.json"}
    assert folders == {"vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler"}


@pytest.mark.parametrize(
    ("family", "of"), [("sd1", "StableDiffusionXLPipeline: family sdxl"), ("sdxl", "StableDiffusionPipeline: family sd1")]
)
def test_a_base_of_the_other_family_is_told_by_both_names(base: Path, tmp_path: Path, family: str, of: str):
    given = base if family == "sd1" else Path(shutil.copytree(BASE_MODEL, tmp_path / "sd1"))
    error = refusal(given, family)
    assert error.reason == "BASE_MODEL_OTHER_FAMILY"
    assert f"is a {of}, but family {family} is a Stable" in error.message


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"])
def test_a_part_that_is_missing_is_named(base: Path, part: str):
    shutil.rmtree(base / part)
    error = refusal(base)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"lacks {part}/" in error.message


def refiner(base: Path) -> None:
    """With the second text encoder alone, and an aesthetic score where the base has the target's size."""
    edit(base / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    edit(base / "unet" / "config.json", projection_class_embeddings_input_dim=POOLED + 5 * TIME_WIDTH)


def test_a_refiner_is_told_as_one(base: Path):
    refiner(base)
    message = refusal(base).message
    assert "model_index.json has no text_encoder; sdxl needs a CLIPTextModel there" in message
    assert "it is a refiner; use the base model" in message


def test_an_inpainting_base_is_refused(base: Path):
    edit(base / "unet" / "config.json", in_channels=9)
    assert "as for inpainting" in refusal(base).message


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"addition_embed_type": ...}, 'addition_embed_type "text_time"'),
        ("unet/config.json", {"addition_embed_type": ["text_time"]}, 'addition_embed_type "text_time"'),
        ("unet/config.json", {"cross_attention_dim": 10}, "cross_attention_dim is not the sum"),
        ("unet/config.json", {"projection_class_embeddings_input_dim": True}, "not a positive number"),
        ("unet/config.json", {"addition_time_embed_dim": "4"}, "not a positive number"),
        ("unet/config.json", {"addition_time_embed_dim": 5}, "takes other sizes"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("vae/config.json", {"latents_mean": [0.1]}, "latents_mean"),
        ("vae/config.json", {"latent_channels": 16}, "other latents"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "sdxl trains epsilon and v_prediction alone"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "text_encoder_2 of another kind"),
        ("model_index.json", {"tokenizer_2": ...}, "does not name its tokenizer_2"),
        ("model_index.json", {"scheduler": ["diffusers", "EDMEulerScheduler"]}, "scheduler of another kind"),
    ],
)
def test_what_does_not_fit_the_family_is_refused(base: Path, file: str, values: dict[str, Any], said: str):
    edit(base / file, **values)
    error = refusal(base)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert said in error.message


@pytest.mark.parametrize(("part", "hidden_size"), [("text_encoder", 7), ("text_encoder_2", 12)])
def test_text_encoders_of_other_widths_are_refused(base: Path, part: str, hidden_size: int):
    edit(base / part / "config.json", hidden_size=hidden_size)
    assert "cross_attention_dim is not the sum of their hidden_size" in refusal(base).message


def test_a_target_of_another_part_is_told_whose_it_is(base: Path):
    [violation] = spec_on_base.check_target_modules(inspect(base), ["to_q", "q_proj"])
    assert violation.field == "adapter.target_modules[1]"
    assert '"q_proj" matches no linear or convolution layer of unet' in violation.message
    assert "text_encoder and text_encoder_2 have one" in violation.message


def test_a_text_encoder_without_attention_to_train_is_named(base: Path):
    found = inspect(base)
    assert spec_on_base.check_adapter(found, AdapterSpec(text_encoder=True)) == []
    modules = {**found.trainable, "text_encoder_2": {"text_model.encoder.layers.0.self_attn.q_proj": 2}}
    violations = spec_on_base.check_adapter(BaseModel(**{**vars(found), "trainable": modules}), AdapterSpec(text_encoder=True))
    assert {violation.field for violation in violations} == {"adapter.text_encoder"}
    assert len(violations) == 3
    assert all("text_encoder_2" in violation.message for violation in violations)
    assert "k_proj" in violations[0].message


@pytest.mark.parametrize(
    "file",
    [
        *("text_encoder/model.safetensors", "text_encoder_2/model.safetensors"),
        *("tokenizer/tokenizer_config.json", "tokenizer_2/tokenizer_config.json"),
    ],
)
def test_cached_texts_are_of_every_encoder_and_tokenizer(packs: Packs, base: Path, file: str):
    before = packs.ready(packs.style("fox", base_model=given(base), dataset={"resolution": 64}))
    path = base / file
    path.write_bytes(path.read_bytes()[:-1] + (b"\x01" if path.suffix == ".safetensors" else b"  }"))
    after = packs.ready(packs.style("hare", base_model=given(base), dataset={"resolution": 64}))
    assert before.texts_digest != after.texts_digest
    assert before.latents_digest == after.latents_digest


def test_cached_latents_are_of_the_autoencoder(packs: Packs, base: Path):
    before = packs.ready(packs.style("fox", base_model=given(base), dataset={"resolution": 64}))
    edit(base / "vae" / "config.json", scaling_factor=0.5)
    after = packs.ready(packs.style("hare", base_model=given(base), dataset={"resolution": 64}))
    assert before.latents_digest != after.latents_digest
    assert before.texts_digest == after.texts_digest


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({}, {"modelspec.prediction_type": "epsilon", "ss_v_parameterization": "False", "ss_zero_terminal_snr": "False"}),
        (
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            {"modelspec.prediction_type": "v", "v_pred": "True", "ztsnr": "True", "ss_zero_terminal_snr": "True"},
        ),
        ({"prediction_type": "v_prediction"}, {"v_pred": "True", "ss_zero_terminal_snr": "False"}),
    ],
)
def test_files_say_which_sdxl_they_are_of(packs: Packs, base: Path, scheduler: dict[str, Any], said: dict[str, str]):
    edit(base / "scheduler" / "scheduler_config.json", **scheduler)
    style = packs.ready(packs.style("fox", base_model=given(base), dataset={"resolution": 64}))
    found = artifact_facts.facts(style, Progress(step=1))
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert (found["ss_base_model_version"], found["ss_v2"]) == ("sdxl_base_v1-0", "False")
    assert {key: found[key] for key in said} == said
    assert {key for key in ("v_pred", "ztsnr") if key in found} <= said.keys()


def test_its_modules_are_named_as_readers_look_them_up(base: Path):
    """Of layers that are not there no number is known: the trained ones alone would not tell where a block lies."""
    found = inspect(base)
    assert found.kohya_modules[ATTENTION[0]] == "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    named = {
        module: kohya_module(FAMILIES.get("sdxl"), module, found.kohya_modules)
        for module in (f"unet.{ATTENTION[0]}", "text_encoder.text_model.encoder.q_proj", "text_encoder_2.encoder.q_proj")
    }
    assert list(named.values()) == [
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_te1_text_model_encoder_q_proj",
        "lora_te2_text_model_encoder_q_proj",
    ]


def given(base: Path) -> dict[str, str]:
    return {"uri": f"file://{base}", "family": "sdxl"}
