"""The files of an artifact are what people's tools expect: named, in the precision asked for, described, the same bytes each time."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file
from torch import Tensor

from examples.demo import BASE_MODEL
from lorafleet.contract.layout import JobLayout
from lorafleet.contract.run_manifest import Style
from lorafleet.spec import AdapterSpec, Spec
from tests.trainer.packs import Packs
from tests.trainer.prepare.test_base_model import edit
from trainer import artifact, artifact_facts
from trainer.adapters.formats.diffusers import diffusers_file
from trainer.adapters.formats.kohya import kohya_file
from trainer.adapters.formats.safetensors_file import file_bytes
from trainer.adapters.formats.tensors import usable_precision
from trainer.adapters.plain_lora import PlainLora
from trainer.checkpoint import Progress
from trainer.group import Group

WEIGHTS = {"unet.a.lora_A.weight": torch.full((2, 3), 1 / 3), "unet.a.lora_B.weight": torch.full((4, 2), 1e-3)}
MAGNITUDES = {"unet.a.lora_magnitude_vector": torch.full((4,), 1 / 3)}


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path, Group(rank=0, world_size=1))


def committed(packs: Packs, name: str, weights: Mapping[str, Tensor] = WEIGHTS, **parts: dict[str, Any]) -> Path:
    """The folder of an artifact with these weights."""
    style = packs.ready(packs.style(name, **parts))
    artifact.commit(style, weights, Progress(step=6), samples=None)
    return Path(JobLayout(style.output_uri).adapter.removeprefix("file://"))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_files_bear_the_name_that_was_asked_for(packs: Packs):
    folder = committed(packs, "fox", output={"name": "Red-Fox_v1.2"})
    assert {path.name for path in folder.glob("*.safetensors")} == {
        "Red-Fox_v1.2.safetensors",
        "Red-Fox_v1.2-pytorch_lora_weights.safetensors",
    }
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    found = metadata(folder / "Red-Fox_v1.2.safetensors")
    assert (found["ss_output_name"], found["modelspec.title"]) == ("Red-Fox_v1.2", "Red-Fox_v1.2")
    assert 'weight_name="Red-Fox_v1.2-pytorch_lora_weights.safetensors"' in (folder / "README.md").read_text()


def test_a_plain_lora_lies_beside_the_adapter_with_its_error(packs: Packs):
    style = packs.ready(packs.style("fox", adapter={"method": "loha"}, output={"name": "fox", "plain_lora_rank": 2}))
    weights = {f"unet.a.hada_{role}": torch.ones(4, 4) for role in ("w1_a", "w1_b", "w2_a", "w2_b")}
    plain = PlainLora(weights=WEIGHTS, adapter=AdapterSpec(rank=2, target_modules=("a",)), error=0.125, worst=(0.25, "unet.a"))
    artifact.commit(style, weights, Progress(step=6), None, plain)
    folder = Path(JobLayout(style.output_uri).adapter.removeprefix("file://"))
    names = ["plain-lora/fox-pytorch_lora_weights.safetensors", "plain-lora/fox.safetensors"]
    manifest = json.loads((folder / "manifest.json").read_text())
    told = {"rank": 2, "of": "loha", "error": 0.125, "worst_error": 0.25, "worst_module": "unet.a", "files": names}
    assert manifest["plain_lora"] == told
    assert {path.name for path in folder.glob("*.safetensors")} == {"fox.safetensors"}, "the adapter is the only one of its folder"
    for name in names:
        assert name in manifest["files"]
        assert metadata(folder / name)["lorafleet.as_lora_error"] == "0.125"
        assert metadata(folder / name)["lorafleet.as_lora_of"] == "loha"
    assert "lorafleet.as_lora_error" not in metadata(folder / "fox.safetensors")
    assert "rank 2; 12.5 % of the update is left out, at most 25 % (`unet.a`) |" in (folder / "README.md").read_text()


def test_comfyuis_names_go_by_how_many_layers_the_bases_levels_have(packs: Packs):
    """The demo's base has one in each, and published ones two: there the same layer is in input_blocks.4."""
    path = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = {f"{path}.lora_A.weight": torch.ones(2, 64), f"{path}.lora_B.weight": torch.ones(64, 2)}
    folder = committed(packs, "fox", weights, output={"formats": ["comfyui"]})
    (module,) = {name.partition(".lora_")[0].removesuffix(".alpha") for name in load_file(folder / "lora-comfyui.safetensors")}
    assert module == "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_q"


def test_without_a_name_files_bear_their_jobs(packs: Packs):
    style = packs.style("fox")
    filled = Style.of(style.job, style.spec, style.output_uri)  # as the control plane hands it to runs
    assert filled.spec.output.name == "fox"
    assert Style.of(style.job, filled.spec.model_copy(), style.output_uri) == filled
    assert metadata(committed(packs, "bear") / "lora-kohya.safetensors")["ss_output_name"] == "bear"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_numbers_have_the_precision_that_was_asked_for(packs: Packs, precision: str, dtype: torch.dtype):
    folder = committed(packs, "fox", WEIGHTS | MAGNITUDES, output={"precision": precision}, adapter={"method": "dora"})
    for path in folder.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert tensor.dtype == (torch.float32 if "magnitude" in name or "dora" in name else dtype), (path.name, name)
    assert f"| files | {precision} |" in (folder / "README.md").read_text()


def test_numbers_beyond_half_precision_are_kept(packs: Packs):
    huge = WEIGHTS | {"unet.a.lora_B.weight": torch.full((4, 2), 1e5)}
    folder = committed(packs, "fox", huge, output={"precision": "fp16"})
    assert all(tensor.isfinite().all() for path in folder.glob("*.safetensors") for tensor in load_file(path).values())
    assert "| files | fp32 |" in (folder / "README.md").read_text()


def test_a_scaling_that_leads_beyond_half_precision_counts(packs: Packs):
    of = packs.style("fox", adapter={"rank": 2, "alpha": 131072.0}).spec.adapter
    assert usable_precision({"unet.a.lora_B.weight": torch.ones(1)}, of, "fp16") == "fp32"
    assert usable_precision({"unet.a.lora_B.weight": torch.ones(1)}, of, "bf16") == "bf16"


def test_what_rounding_takes_from_alpha_is_given_back(packs: Packs):
    asked = packs.style("fox", adapter={"method": "rslora", "rank": 3, "alpha": 1.0, "target_modules": ["a"]}).spec.on("sd1")
    weights = {"unet.a.lora_A.weight": torch.eye(3), "unet.a.lora_B.weight": torch.eye(3) * 0.5}
    found = load(kohya_file(weights, asked, {}, "bf16"))
    update = float(found["lora_unet_a.lora_up.weight"][0, 0]) * float(found["lora_unet_a.alpha"]) / 3
    assert update == pytest.approx(0.5 / 3**0.5, rel=2**-8)
    fine = load(kohya_file(weights, asked, {}, "fp16"))
    assert float(fine["lora_unet_a.lora_up.weight"][0, 0]) * float(fine["lora_unet_a.alpha"]) / 3 == pytest.approx(0.5 / 3**0.5, rel=2**-11)


@pytest.mark.parametrize(("precision", "said"), [("fp32", "no"), ("bf16", "bf16"), ("int8", "bf16"), ("nf4", "bf16")])
def test_the_kohya_file_says_in_kohyas_words_what_passes_were_computed_in(packs: Packs, precision: str, said: str):
    asked = packs.style("fox", adapter={"target_modules": ["a"]}, training={"precision": precision}).spec.on("sd1")
    assert of_kohya(asked)["ss_mixed_precision"] == said


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({}, ("l2", None, None, "False")),
        ({"loss": "huber"}, ("huber", "0.1", "snr", "False")),
        ({"loss": "huber", "huber_delta": 0.3, "huber_schedule": "constant"}, ("huber", "0.3", "constant", "False")),
        ({"weighting": "debiased"}, ("l2", None, None, "True")),
    ],
)
def test_the_kohya_file_says_how_errors_counted_also_where_the_spec_did_not(
    packs: Packs, objective: dict[str, Any], said: tuple[str | None, ...]
):
    found = of_kohya(packs.style("fox", adapter={"target_modules": ["a"]}, objective=objective).spec.on("sd1"))
    assert tuple(found.get(f"ss_{name}") for name in ("loss_type", "huber_c", "huber_schedule", "debiased_estimation")) == said


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"lr_scheduler": "constant"}, ("constant", None, None)),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 2}, ("constant_with_warmup", None, None)),
        ({"lr_scheduler": "cosine_with_restarts", "lr_cycles": 3}, ("cosine_with_restarts", "3", None)),
        ({"lr_scheduler": "polynomial", "lr_power": 2.0}, ("polynomial", None, "2.0")),
    ],
)
def test_the_kohya_file_has_kohyas_words_for_schedules(packs: Packs, training: dict[str, Any], said: tuple[str | None, ...]):
    found = of_kohya(packs.style("fox", adapter={"target_modules": ["a"]}, training=training).spec.on("sd1"))
    assert tuple(found.get(f"ss_lr_scheduler{name}") for name in ("", "_num_cycles", "_power")) == said


def of_kohya(asked: Spec) -> dict[str, str]:
    """The metadata of a small adapter's file."""
    data = kohya_file({"unet.a.lora_A.weight": torch.eye(3), "unet.a.lora_B.weight": torch.eye(3)}, asked, {})
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def test_the_kohya_file_tells_what_it_was_trained_on(packs: Packs):
    folder = committed(packs, "fox", dataset={"trigger_phrase": "fox style", "validation_fraction": 0.02})
    found = metadata(folder / "lora-kohya.safetensors")
    directories, frequency = json.loads(found["ss_dataset_dirs"]), json.loads(found["ss_tag_frequency"])
    (name, counts), (same, facts) = *frequency.items(), *directories.items()
    assert name == same == "noto-emoji"
    assert counts["fox style"] == facts["img_count"] == int(found["ss_num_train_images"])
    assert found["ss_resolution"] == "(64, 64)"
    assert (found["modelspec.resolution"], found["modelspec.prediction_type"]) == ("64x64", "epsilon")
    assert found["modelspec.trigger_phrase"] == "fox style"


def test_tags_are_bounded_and_count_captions():
    counts = artifact_facts.tags(["red, round", "red,  , " + "x" * 1000] + [f"tag {number}" for number in range(5000)], "")
    assert (counts["red"], counts["round"]) == (2, 1)
    assert len(counts) == artifact_facts.MAX_TAGS
    assert max(map(len, counts)) <= artifact_facts.MAX_TAG
    assert next(iter(counts)) == "red"


def test_hashes_are_those_that_webuis_take(packs: Packs):
    large = WEIGHTS | {"unet.b.lora_A.weight": torch.arange(600_000.0).view(2, -1), "unet.b.lora_B.weight": torch.ones(4, 2)}
    path = committed(packs, "fox", large, output={"precision": "fp32"}) / "lora-kohya.safetensors"
    data, found = path.read_bytes(), metadata(path)
    start = 8 + int.from_bytes(data[:8], "little")
    assert found["sshs_model_hash"] == hashlib.sha256(data[start:]).hexdigest()
    training = {key: value for key, value in found.items() if key.startswith("ss_")}
    assert found["sshs_legacy_hash"] == hashlib.sha256(file_bytes(load_file(path), training)[0x100000:0x110000]).hexdigest()[:8]
    unet = (BASE_MODEL / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert found["ss_sd_model_hash"] == hashlib.sha256(unet[0x100000:0x110000]).hexdigest()[:8]
    assert found["ss_new_sd_model_hash"] == hashlib.sha256(unet).hexdigest()


def test_the_same_adapter_is_the_same_bytes_in_any_process(packs: Packs):
    """safetensors writes metadata in an order that differs from process to process."""
    asked = packs.style("fox").spec.on("sd1")
    program = (
        "import hashlib, sys, torch; from lorafleet import spec; from trainer.adapters.formats.diffusers import diffusers_file\n"
        "from trainer.adapters.formats.kohya import kohya_file\n"
        "weights = {'unet.a.lora_A.weight': torch.full((2, 3), 1 / 3), 'unet.a.lora_B.weight': torch.full((4, 2), 1e-3)}\n"
        "asked = spec.Spec.model_validate_json(sys.argv[1])\n"
        "print(hashlib.sha256(kohya_file(weights, asked, {}) + diffusers_file(weights, asked)).hexdigest())"
    )
    here = hashlib.sha256(kohya_file(WEIGHTS, asked, {}) + diffusers_file(WEIGHTS, asked)).hexdigest()
    there = subprocess.run([sys.executable, "-c", program, asked.model_dump_json()], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


@pytest.mark.parametrize(
    ("width", "kind", "version", "architecture"),
    [
        (1024, "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        (1024, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        (128, "v_prediction", "sd_v1_v", "stable-diffusion-v1/lora"),
        (128, "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
    ],
)
def test_a_base_is_called_what_it_is(tmp_path: Path, packs: Packs, width: int, kind: str, version: str, architecture: str):
    base = Path(shutil.copytree(BASE_MODEL, tmp_path / "base"))
    edit(base / "unet" / "config.json", cross_attention_dim=[width, width])
    edit(base / "text_encoder" / "config.json", hidden_size=width)
    edit(base / "scheduler" / "scheduler_config.json", prediction_type=kind)
    found = metadata(committed(packs, "fox", base_model={"uri": f"file://{base}"}) / "lora-kohya.safetensors")
    is_v = kind == "v_prediction"
    assert (found["ss_base_model_version"], found["ss_v2"]) == (version, str(width == 1024))
    assert (found["ss_v_parameterization"], found["modelspec.prediction_type"]) == (str(is_v), "v" if is_v else "epsilon")
    assert ("v_pred" in found) == is_v
    assert found["modelspec.architecture"] == architecture


@pytest.mark.parametrize("formats", [["kohya"], ["diffusers"], ["kohya", "diffusers"]])
def test_the_card_of_a_dora_recommends_no_program_that_is_wrong(packs: Packs, formats: list[str]):
    folder = committed(packs, "fox", WEIGHTS | MAGNITUDES, adapter={"method": "dora"}, output={"formats": formats, "name": "fox"})
    card = (folder / "README.md").read_text()
    assert ('load_lora_weights("path/to/this/folder", weight_name="fox-pytorch_lora_weights.safetensors")' in card) == (
        "diffusers" in formats
    )
    assert 'weight_name="fox.safetensors"' not in card
    assert ("| WRONG |" in card) == ("kohya" in formats)
    assert "AUTOMATIC1111" not in (committed(packs, "plain", output={"formats": formats}) / "README.md").read_text()


def test_magnitudes_lie_along_the_outputs_as_newer_readers_take_them(packs: Packs):
    """Readers take the norm over the axis along which `dora_scale` has the layer's outputs (LyCORIS: wd_on_output)."""
    square = {
        "unet.a.lora_A.weight": torch.ones(2, 4),
        "unet.a.lora_B.weight": torch.ones(4, 2),
        "unet.a.lora_magnitude_vector": torch.arange(4.0),
    }
    convolution = {"unet.b.lora_A.weight": torch.ones(2, 3, 3, 3), "unet.b.lora_B.weight": torch.ones(5, 2, 1, 1)}
    convolution["unet.b.lora_magnitude_vector"] = torch.arange(5.0)
    asked = packs.style("fox", adapter={"method": "dora", "target_modules": ["a", "b"]}).spec.on("sd1")
    data = kohya_file(square | convolution, asked, {}, "fp16")
    found = load(data)
    assert found["lora_unet_a.dora_scale"].tolist() == [[0.0], [1.0], [2.0], [3.0]]
    assert found["lora_unet_b.dora_scale"].shape == (5, 1, 1, 1)
    theirs = load(diffusers_file(square | convolution, asked, "fp16"))
    assert torch.equal(theirs["unet.a.lora_magnitude_vector"], found["lora_unet_a.dora_scale"].flatten())
