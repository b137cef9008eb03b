"""The base model: found whole or refused with what is missing; target modules checked against it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from examples.demo import BASE_MODEL
from lorafleet import objectives
from lorafleet.errors import RunFailed
from lorafleet.spec import AdapterSpec, BaseModelSpec
from lorafleet.spec_overrides import OverrideSpec
from trainer.prepare import base_model, spec_on_base
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

WORD = "somebody-elses-word"


def inspect(path: Path, cache: Path) -> BaseModel:
    return base_model.inspect(BaseModelSpec(uri=f"file://{path}"), Folder(f"file://{cache}"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(BASE_MODEL, tmp_path / "base")
    return tmp_path / "base"


def refusal(path: Path, cache: Path) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        inspect(path, cache)
    return caught.value


def test_it_says_what_it_needs_to_be_trained(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    assert (found.resolution, found.resolution_step, found.vae_factor) == (64, 16, 4)
    assert "README.md" not in found.files


def test_digests_are_taken_once_and_of_the_content(tmp_path: Path, copy: Path):
    here, there = inspect(BASE_MODEL, tmp_path / "cache"), inspect(copy, tmp_path / "cache")
    assert here.digest == there.digest
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    changed = inspect(copy, tmp_path / "cache")
    assert (changed.digest, changed.identity == here.identity) == (here.digest, False), "the digest is of tensors alone"
    assert changed.part_digest("vae/") == here.part_digest("vae/")
    assert inspect(BASE_MODEL, tmp_path / "cache") == here


def test_what_is_missing_is_named(tmp_path: Path, copy: Path):
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copy / "tokenizer")
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "tokenizer/ (its config)" in error.message
    assert "vae/*.safetensors" in error.message


def test_another_family_is_refused(tmp_path: Path, copy: Path):
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(RunFailed, match="is a StableDiffusionXLPipeline") as caught:
        base_model.inspect(BaseModelSpec(uri=f"file://{copy}", family="sd1"), Folder(f"file://{tmp_path}"))
    assert caught.value.reason == "BASE_MODEL_OTHER_FAMILY"


@pytest.mark.parametrize("kind", [WORD, [WORD], {WORD: 1}, None])
def test_a_kind_that_is_not_known_is_not_repeated(tmp_path: Path, copy: Path, kind: Any):
    edit(copy / "model_index.json", _class_name=kind)
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_OTHER_FAMILY"
    assert "of a kind that is not known" in error.message
    assert WORD not in error.message


def test_pickled_weights_are_refused(tmp_path: Path, copy: Path):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_PICKLED"
    assert "unet" in error.message


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path):
    assert "no model_index.json" in refusal(tmp_path / "empty", tmp_path).message


def test_target_modules_are_those_of_the_model(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    violations = spec_on_base.check_target_modules(found, ["to_q", "to_kk", "ff.net.0.proj", "norm1", "upsamplers.0.conv"])
    assert [each.field for each in violations] == ["adapter.target_modules[1]", "adapter.target_modules[3]"]
    assert "close: to_k" in violations[0].message


def test_overrides_are_of_layers_and_no_two_of_one(tmp_path: Path):
    asked = [{"pattern": pattern, "rank": 2} for pattern in ("mid_block", "attn3", "mid_block.*to_q", "up_blocks.1", "to_k")]
    adapter = AdapterSpec(target_modules=("to_q",), overrides=tuple(map(OverrideSpec.model_validate, asked)))
    found = {each.field: each.message for each in spec_on_base.check_adapter(inspect(BASE_MODEL, tmp_path), adapter)}
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    rival = f'"mid_block.*to_q" matches {layer}, as adapter.overrides[0] "mid_block" does; write more of the path'
    assert found == {
        "adapter.overrides[1].pattern": '"attn3" matches no layer of this sd1 base that has an adapter',
        "adapter.overrides[2].pattern": rival,
        "adapter.overrides[4].pattern": '"to_k" matches no layer of this sd1 base that has an adapter',
    }


def test_a_resolution_must_divide(tmp_path: Path):
    found = inspect(BASE_MODEL, tmp_path)
    assert spec_on_base.check_resolution(found, 64) == []
    assert "nearest: 64" in spec_on_base.check_resolution(found, 70)[0].message


def test_half_an_upload_is_named(tmp_path: Path, copy: Path):
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "vae/diffusion_pytorch_model.safetensors is cut short" in error.message


@pytest.mark.parametrize("content", ["{no json", "[]", "{}"])
def test_a_broken_config_is_named(tmp_path: Path, copy: Path, content: str):
    (copy / "unet" / "config.json").write_text(content)
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert "unet/config.json" in error.message


def test_a_target_that_is_a_part_and_no_layer_is_refused(tmp_path: Path):
    violations = spec_on_base.check_target_modules(inspect(BASE_MODEL, tmp_path), ["0"])
    assert "which is not a layer" in violations[0].message


def edit(path: Path, **values: Any) -> None:
    """Sets fields of a JSON file; None writes null, and `...` takes the field away."""
    fields = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type 'sample'"),
        ("scheduler/scheduler_config.json", {"prediction_type": WORD}, "prediction_type that is not known"),
        ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}, "prediction_type"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps"),
        ("unet/config.json", {"sample_size": "64"}, "sample_size"),
        ("unet/config.json", {"sample_size": [64, -1]}, "sample_size"),
        ("unet/config.json", {"block_out_channels": 7}, "block_out_channels"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"in_channels": 8}, "as for editing"),
        ("unet/config.json", {"in_channels": "9"}, "inpainting"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "it is an LCM, distilled to draw in a few steps"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "LCMScheduler's: the base was distilled"),
        ("scheduler/scheduler_config.json", {"_class_name": "TCDScheduler"}, "TCDScheduler's: the base was distilled"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
            "as SD Turbo and SDXL Turbo do",
        ),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "another family"),
        ("unet/config.json", {"cross_attention_dim": 768}, "cross_attention_dim"),
        ("unet/config.json", {"_class_name": "SD3Transformer2DModel"}, "UNet2DConditionModel"),
        ("unet/config.json", {"quantization_config": {"load_in_4bit": True}}, "quantised"),
        ("vae/config.json", {"scaling_factor": "much"}, "scaling_factor"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "AutoencoderKL"),
        ("text_encoder/config.json", {"max_position_embeddings": -1}, "max_position_embeddings"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "77"}, "model_max_length"),
        ("model_index.json", {"unet": ["os", "system"]}, "unet of another kind"),
        ("model_index.json", {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "scheduler"),
        ("model_index.json", {"extra": ["some_package", "Model"]}, "a part that is not known from a library"),
        ("model_index.json", {"feature_extractor": [[], None]}, "from a library that sd1 has not"),
        ("model_index.json", {WORD: ["some_package", "Model"]}, "a part that is not known from a library"),
        ("model_index.json", {"safety_checker": ["antigravity", "Checker"]}, "'safety_checker' from a library"),
        ("model_index.json", {"extra": [2, "Model"]}, "a part that is not known from a library"),
        ("model_index.json", {"extra": []}, "a part that is not known from a library"),
        ("model_index.json", {"vae": [2, 5, 8]}, "vae of another kind"),
        ("model_index.json", {"vae": ...}, "does not name its vae"),
    ],
)
def test_what_does_not_fit_the_family_is_refused_with_its_file(tmp_path: Path, copy: Path, file: str, values: dict[str, Any], said: str):
    edit(copy / file, **values)
    error = refusal(copy, tmp_path)
    assert (error.reason, error.retryable) == ("BASE_MODEL_UNSUPPORTED", False)
    assert file in error.message
    assert said in error.message
    assert WORD not in error.message


@pytest.mark.parametrize("kind", ["sample", WORD, 7, None])
def test_an_objective_is_refused_in_the_control_planes_words(tmp_path: Path, copy: Path, kind: Any):
    edit(copy / objectives.SCHEDULER_CONFIG, prediction_type=kind)
    error = refusal(copy, tmp_path)
    assert error.reason == objectives.REASON
    assert error.message == objectives.message(f"file://{copy}", objectives.problem(kind, "sd1") or "")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, copy: Path):
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="sample")
    edit(copy / "unet" / "config.json", sample_size=True)
    edit(copy / "model_index.json", extra=["some_package", "Model"])
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    message = refusal(copy, tmp_path).message
    assert all(said in message for said in ("prediction_type", "sample_size", "a part that is not known", "vae/*.safetensors"))


def test_a_setting_of_the_pipeline_may_be_a_list_of_numbers(tmp_path: Path, copy: Path):
    edit(copy / "model_index.json", text_encoder_select_layers=[2, 5, 8], scales=[0.5, 1], force_zeros=True)
    assert inspect(copy, tmp_path).resolution == 64


@pytest.mark.parametrize("absent", [..., [None, None]])
def test_parts_that_training_does_without_may_be_absent_or_there(tmp_path: Path, copy: Path, absent: Any):
    edit(copy / "model_index.json", safety_checker=absent, feature_extractor=absent, image_encoder=absent, requires_safety_checker=True)
    assert inspect(copy, tmp_path).resolution == 64
    edit(copy / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    edit(copy / "model_index.json", feature_extractor=["transformers", "CLIPImageProcessor"])
    assert inspect(copy, tmp_path).resolution == 64


@pytest.mark.parametrize(("sample_size", "resolution"), [([16, 24], 80), ([16, 16], 64), (24, 96), (None, None), (..., None)])
def test_the_resolution_of_a_base_is_that_of_its_pixels(tmp_path: Path, copy: Path, sample_size: Any, resolution: int | None):
    edit(copy / "unet" / "config.json", sample_size=sample_size)
    found = inspect(copy, tmp_path)
    assert found.resolution == resolution
    violations = spec_on_base.check_resolution(found, found.resolution)
    assert [each.field for each in violations] == ([] if resolution else ["dataset.resolution"])


def test_a_base_trained_at_more_than_can_be_trained_needs_a_resolution(tmp_path: Path, copy: Path):
    edit(copy / "unet" / "config.json", sample_size=2048)
    found = inspect(copy, tmp_path)
    assert "at most 4096" in spec_on_base.check_resolution(found, found.resolution)[0].message


@pytest.mark.parametrize(("length", "taken"), [(..., 24), (None, 24), (1e30, 24), (10**30, 24), (512, 24), (16, 16)])
def test_captions_are_as_long_as_tokenizer_and_encoder_both_take(tmp_path: Path, copy: Path, length: Any, taken: int):
    edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    assert inspect(copy, tmp_path).facts.max_tokens == taken


@pytest.mark.parametrize(
    "text", [b"{", b"7", b"null", b'{"sample_size": Infinity}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff", b" " * 2**21]
)
@pytest.mark.parametrize(
    "file", ["unet/config.json", "model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
)
def test_a_config_that_is_none_is_refused_by_its_name(tmp_path: Path, copy: Path, file: str, text: bytes):
    (copy / file).write_bytes(text)
    error = refusal(copy, tmp_path)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert file in error.message
    assert len(error.message) < 1000


def test_weights_under_a_strange_name_are_named(tmp_path: Path, copy: Path):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "emaonly.safetensors")
    assert "rename one to unet/diffusion_pytorch_model.safetensors" in refusal(copy, tmp_path).message


def test_shards_are_those_that_the_index_names(tmp_path: Path, copy: Path):
    shard_denoiser(copy)
    assert inspect(copy, tmp_path).trainable == inspect(BASE_MODEL, tmp_path).trainable
    index = copy / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    for broken, said in (
        ({**where, "extra.weight": where["conv_in.weight"]}, "does not hold the tensors"),
        ({**where, "extra.weight": "absent.safetensors"}, "names 1 shards that are not there"),
        ({**where, "extra.weight": f"{WORD}.safetensors"}, "names 1 shards that are not there"),
        ({**where, "extra.weight": "../../secret.safetensors"}, "no plain *.safetensors name"),
        ({**where, "extra.weight": 7}, "no plain *.safetensors name"),
        ([], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": broken}))
        message = refusal(copy, tmp_path).message
        assert said in message
        assert WORD not in message


def test_a_shard_that_is_missing_is_named_by_its_usual_name(tmp_path: Path, copy: Path):
    shard_denoiser(copy)
    (copy / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "not there: unet/diffusion_pytorch_model-00002-of-00002.safetensors" in refusal(copy, tmp_path).message


def shard_denoiser(base: Path, index: str = "diffusion_pytorch_model.safetensors.index.json") -> None:
    whole = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    where: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, base / "unet" / shard, {"format": "pt"})
        where |= dict.fromkeys(part, shard)
    (base / "unet" / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    whole.unlink()


@pytest.mark.parametrize("more", [{"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}, {"_class_name": "DDIMScheduler"}])
def test_trailing_times_alone_make_no_turbo(tmp_path: Path, copy: Path, more: dict[str, Any]):
    turbo = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
    edit(copy / "scheduler" / "scheduler_config.json", **{**turbo, **more})
    assert inspect(copy, tmp_path / "cache").family == "sd1"


def test_averaged_weights_are_taken_where_there_are_the_others_too(tmp_path: Path, copy: Path):
    shutil.copy(copy / "unet" / "diffusion_pytorch_model.safetensors", copy / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    found = inspect(copy, tmp_path / "cache")
    assert [path for path in found.files if path.startswith("unet/")] == ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "no usual names; rename one" in refusal(copy, tmp_path / "cache").message
