"""Which weights a node reads from the store straight into tensors, and which it keeps: its cache decides, and its copies are fast again."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.demo import BASE_MODEL
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from tests.trainer.families import flux
from tests.trainer.in_store import emptied, uploaded, without_node_cache
from tests.trainer.packs import Packs
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.loop import WarmWorker
from trainer.prepare import base_copy, base_model
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder

CPU = torch.device("cpu")
VAE_FILE = "diffusion_pytorch_model.safetensors"
pytestmark = pytest.mark.usefixtures("s3")


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return without_node_cache(tmp_path / "disk", monkeypatch)


def inspect(uri: str, tmp_path: Path, **given: str) -> BaseModel:
    return base_model.inspect(BaseModelSpec.model_validate({"uri": uri, **given}), Folder((tmp_path / "facts").as_uri()))


def weights_on(disk: Path) -> list[str]:
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*.safetensors"))


@pytest.mark.parametrize("setting", ["", "~/elsewhere"])
def test_a_node_with_a_cache_keeps_a_copy_and_loads_from_it(setting: str, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_NODE_CACHE", setting)
    base = inspect(uploaded(BASE_MODEL), tmp_path)
    assert base_copy.streamed(base, "unet") == {}
    kept = base_copy.materialise(base)
    assert kept.is_relative_to(disk / (setting.removeprefix("~/") or ".cache/lorafleet"))
    emptied(base.uri)
    assert FrozenBase(base, "fp32", CPU).parts["unet"] is not None


def test_a_part_from_a_store_is_streamed_beside_a_base_on_disk(tmp_path: Path, disk: Path):
    vae = Path(shutil.copytree(BASE_MODEL / "vae", tmp_path / "vae"))
    weights = {name: tensor * 2 for name, tensor in load_file(vae / VAE_FILE).items()}
    (vae / VAE_FILE).unlink()
    save_file(weights, vae / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    base = inspect(BASE_MODEL.as_uri(), tmp_path, vae_uri=uploaded(vae))
    loaded = FrozenBase(base, "fp32", CPU).for_encoding()["vae"].state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in weights.items())
    assert not any("/vae/" in path for path in weights_on(disk))
    assert base_copy.streamed(base, "unet") == {}


def test_older_names_of_tensors_are_known(tmp_path: Path):
    """As the first bases have them."""
    new, old = flux.write(tmp_path / "new"), flux.write(tmp_path / "old")
    weights = load_file(old / "vae" / VAE_FILE)
    for ours, theirs in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        weights = {name.replace(f".attentions.0.{ours}.", f".attentions.0.{theirs}."): each for name, each in weights.items()}
    assert sum(".query." in name for name in weights) > 0
    save_file(weights, old / "vae" / VAE_FILE, {"format": "pt"})
    base = inspect(uploaded(old), tmp_path)
    assert base.digest == inspect(new.as_uri(), tmp_path).digest
    loaded = FrozenBase(base, "fp32", CPU).for_encoding()["vae"].state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in load_file(new / "vae" / VAE_FILE).items())


@pytest.mark.parametrize(("part", "file"), [("unet", f"unet/{VAE_FILE}"), ("text_encoder", "text_encoder/model.safetensors")])
def test_weights_that_are_missing_are_not_drawn_at_random(part: str, file: str, tmp_path: Path):
    folder = Path(shutil.copytree(BASE_MODEL, tmp_path / "base"))
    weights = load_file(folder / file)
    weights.pop(max(weights))
    save_file(weights, folder / file, {"format": "pt"})
    base = FrozenBase(inspect(uploaded(folder), tmp_path), "fp32", CPU)
    with pytest.raises(RunFailed, match=f"{part}/ of the base cannot be loaded.* lack 1 of its weights") as caught:
        _ = base.parts[part]
    assert (caught.value.reason, caught.value.retryable) == ("BASE_MODEL_UNUSABLE", False)


def test_a_base_that_was_replaced_since_it_was_looked_at_is_another_attempts(tmp_path: Path):
    uri = uploaded(BASE_MODEL)
    base = FrozenBase(inspect(uri, tmp_path), "fp32", CPU)
    Folder(uri).put(f"unet/{VAE_FILE}", BASE_MODEL / "vae" / VAE_FILE)
    with pytest.raises(RunFailed, match=f"{uri}/unet/{VAE_FILE} changed while it was read: it was .* ETag .* now it is") as caught:
        _ = base.parts["unet"]
    assert (caught.value.reason, caught.value.retryable) == ("OBJECT_CHANGED", True)


def test_a_warm_worker_reads_what_is_left_from_the_base_of_the_next_pack(tmp_path: Path, group: Group):
    """The first one may be deleted by then, or be of a tenant whose credentials are gone."""
    packs = Packs(tmp_path, group)
    first, second = (packs.ready(packs.style(name, base_model={"uri": uploaded(BASE_MODEL)})) for name in ("first", "second"))
    worker = WarmWorker(packs.group)
    loaded = worker._loaded([first], CPU)
    emptied(first.base.uri)
    again = worker._loaded([second], CPU)
    assert again is loaded
    assert again.for_encoding()["vae"] is not None
