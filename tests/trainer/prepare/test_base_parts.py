"""Parts of a base that lie elsewhere: looked at, digested and loaded from there; what is wrong with them is told by their own field."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from tests.trainer.packs import Packs
from tests.trainer.prepare.test_base_model import edit
from trainer.frozen_base import FrozenBase
from trainer.prepare import base_model
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

VAE_FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def node_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", str(tmp_path / "node"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BASE_MODEL, tmp_path / "base"))


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """Another autoencoder, in half precision's name."""
    folder = Path(shutil.copytree(BASE_MODEL / "vae", tmp_path / "vae"))
    weights = {name: tensor * 2 for name, tensor in load_file(folder / VAE_FILE).items()}
    (folder / VAE_FILE).unlink()
    save_file(weights, folder / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    return folder


def inspect(base: Path, tmp_path: Path, **given: Any) -> BaseModel:
    return base_model.inspect(BaseModelSpec(uri=f"file://{base}", **given), Folder(f"file://{tmp_path}/cache"))


def refusal(base: Path, tmp_path: Path, **given: Any) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        inspect(base, tmp_path, **given)
    return caught.value


def test_an_autoencoder_from_elsewhere_is_the_one_that_is_loaded(tmp_path: Path, vae: Path):
    found = inspect(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}")
    loaded = FrozenBase(found, "fp32", torch.device("cpu")).for_encoding()["vae"].state_dict()
    own = load_file(BASE_MODEL / "vae" / VAE_FILE)
    assert all(torch.equal(loaded[name], 2 * own[name].float()) for name in own)


def test_so_is_one_whose_files_have_the_usual_names(tmp_path: Path, vae: Path):
    """Nothing but its place tells that it is not the base's own."""
    (vae / "diffusion_pytorch_model.fp16.safetensors").rename(vae / VAE_FILE)
    found = inspect(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}")
    loaded = FrozenBase(found, "fp32", torch.device("cpu")).for_encoding()["vae"].state_dict()
    own = load_file(BASE_MODEL / "vae" / VAE_FILE)
    assert all(torch.equal(loaded[name], 2 * own[name].float()) for name in own)


def test_its_digest_is_that_of_what_is_loaded(tmp_path: Path, vae: Path):
    plain, swapped = inspect(BASE_MODEL, tmp_path), inspect(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}")
    assert plain.digest != swapped.digest
    assert plain.part_digest("vae/") != swapped.part_digest("vae/")
    assert plain.part_digest("text_encoder/") == swapped.part_digest("text_encoder/")
    assert inspect(BASE_MODEL, tmp_path, parts={"vae": f"file://{vae}"}).digest == swapped.digest
    (vae / "diffusion_pytorch_model.fp16.safetensors").write_bytes((BASE_MODEL / "vae" / VAE_FILE).read_bytes())
    assert inspect(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}").part_digest("vae/") != swapped.part_digest("vae/")


def test_what_is_cached_of_one_autoencoder_is_not_anothers(tmp_path: Path, vae: Path):
    packs = Packs(tmp_path, None)  # pyright: ignore[reportArgumentType]: nothing trains
    own, others = (
        packs.ready(packs.style(name, base_model={"uri": f"file://{BASE_MODEL}", **given}))
        for name, given in (("own", {}), ("others", {"vae_uri": f"file://{vae}"}))
    )
    assert own.latents_digest != others.latents_digest
    assert own.texts_digest == others.texts_digest


def test_what_the_base_has_in_its_place_is_not_looked_at(tmp_path: Path, copy: Path, vae: Path):
    (copy / "vae" / "config.json").write_text("{no json")
    (copy / "vae" / VAE_FILE).rename(copy / "vae" / "weights.bin")
    edit(copy / "model_index.json", vae=[None, None])
    assert inspect(copy, tmp_path, vae_uri=f"file://{vae}").where("vae/config.json") == f"file://{vae}/config.json"


def test_a_scheduler_from_elsewhere_says_what_is_trained_and_drawn_with(tmp_path: Path, copy: Path):
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="v_prediction", _class_name="EulerDiscreteScheduler")
    found = inspect(BASE_MODEL, tmp_path, parts={"scheduler": f"file://{copy}/scheduler"})
    assert (found.facts.prediction_type, found.facts.scheduler) == ("v_prediction", "EulerDiscreteScheduler")


@pytest.mark.parametrize("field", ["vae_uri", "parts.vae"])
def test_what_is_wrong_with_a_part_is_told_by_its_field(tmp_path: Path, vae: Path, field: str):
    given: dict[str, Any] = {"vae_uri": f"file://{vae}"} if field == "vae_uri" else {"parts": {"vae": f"file://{vae}"}}
    edit(vae / "config.json", latents_mean=[0.1])
    error = refusal(BASE_MODEL, tmp_path, **given)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert error.message.startswith(f"base_model.{field}: file://{vae}/config.json has latents_mean")
    (vae / "config.json").unlink()
    error = refusal(BASE_MODEL, tmp_path, **given)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"base_model.{field}: file://{vae} lacks (its config); name the folder of the part itself" in error.message


def test_an_autoencoder_of_another_family_is_refused(tmp_path: Path, vae: Path):
    edit(vae / "config.json", latent_channels=16)
    assert "in_channels is not its latent_channels" in refusal(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}").message


def test_no_link_leads_out_of_a_parts_folder(tmp_path: Path, vae: Path):
    (vae / "config.json").rename(tmp_path / "elsewhere.json")
    (vae / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RunFailed):
        inspect(BASE_MODEL, tmp_path, vae_uri=f"file://{vae}")
