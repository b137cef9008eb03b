"""A job's last step: its adapter with others as one, or fused into its base; whole, with what it was made of and how exact it is."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.demo import BASE_MODEL
from lorafleet import spec
from lorafleet.contract import artifact_manifest
from lorafleet.contract.layout import MANIFEST, JobLayout
from lorafleet.errors import RunFailed
from lorafleet.spec_merge import MergedWithSpec, MergeSpec
from tests.trainer.generation import made
from tests.trainer.packs import Packs
from trainer import artifact, artifact_merge
from trainer.adapters.files import reading, updates
from trainer.adapters.files.base_weights import weights_of
from trainer.adapters.files.contents import AdapterFile
from trainer.checkpoint import Progress
from trainer.group import Group
from trainer.prepare import base_model
from trainer.prepare.style import PreparedStyle
from trainer.storage import Folder

PATHS = tuple(f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.{name}" for name in ("to_q", "to_v"))
RANK = 2


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    return Packs(tmp_path, Group(rank=0, world_size=1))


@pytest.fixture(scope="module")
def frozen() -> Mapping[str, Tensor]:
    return {path: weight.float() for path, weight in weights_of(BASE_MODEL, PATHS).items()}


def layers(frozen: Mapping[str, Tensor], more_inputs: int = 0) -> dict[str, nn.Linear]:
    return {path: nn.Linear(weight.shape[1] + more_inputs, len(weight), bias=False) for path, weight in frozen.items()}


def trained(frozen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as a job has them in the end."""
    found: dict[str, Tensor] = {}
    for number, (path, weight) in enumerate(frozen.items()):
        found[f"{path}.lora_A.weight"] = made.randn(number, RANK, weight.shape[1])
        found[f"{path}.lora_B.weight"] = made.randn(10 + number, len(weight), RANK)
    return found


def other(folder: Path, frozen: Mapping[str, Tensor], name: str = "other", method: str = "lora", more_inputs: int = 0, **said: str) -> Path:
    return made.file(folder, name, made.on(layers(frozen, more_inputs), method, 50, rank=3, **said))


def committed(packs: Packs, frozen: Mapping[str, Tensor], merge: dict[str, Any], **output: Any) -> Path:
    style = ready(packs, merge, **output)
    artifact.commit(style, trained(frozen), Progress(step=6), samples=None)
    return place(style)


def ready(packs: Packs, merge: dict[str, Any], **output: Any) -> PreparedStyle:
    return packs.ready(packs.style("fox", output={"precision": "fp32", "formats": ["kohya", "diffusers"], **output, "merge": merge}))


def place(style: PreparedStyle) -> Path:
    return Path(JobLayout(style.output_uri).adapter.removeprefix("file://"))


def update(file: AdapterFile, path: str, weight: Tensor) -> Tensor:
    return updates.update(next(module for module in file.modules if module.paths == (path,)), weight).float()


@pytest.mark.parametrize("method", ["lora", "loha", "dora"])
def test_the_trained_adapter_and_others_are_one_and_their_weighted_sum(packs: Packs, frozen: Mapping[str, Tensor], method: str):
    file = other(packs.folder, frozen, method=method)
    folder = committed(packs, frozen, {"adapters": [{"uri": file.as_uri(), "weight": 0.5}], "weight": -2.0})
    own, theirs = reading.read_path(folder / "lora-kohya.safetensors", "sd1"), reading.read_path(file, "sd1")
    for name in ("lora-kohya.safetensors", "pytorch_lora_weights.safetensors"):
        result = reading.read_path(folder / "merged" / name, "sd1")
        for path, weight in frozen.items():
            wanted = 0.5 * update(theirs, path, weight) - 2.0 * update(own, path, weight)
            assert torch.allclose(update(result, path, weight), wanted, atol=1e-5 * float(wanted.abs().max()))


def test_its_manifest_and_card_say_what_it_was_made_of_and_how_exact_it_is(packs: Packs, frozen: Mapping[str, Tensor]):
    file = other(packs.folder, frozen)
    folder = committed(packs, frozen, {"adapters": [{"uri": file.as_uri()}], "kind": "svd", "rank": 2})
    text = (folder / MANIFEST).read_bytes()
    manifest, files = json.loads(text), artifact_manifest.parse(text).files
    own = (folder / "lora-kohya.safetensors").read_bytes()
    assert manifest["parents"] == [{"uri": file.as_uri(), "digest": hashlib.sha256(file.read_bytes()).hexdigest(), "weight": 1.0}]
    told = manifest["merge"]
    assert told["trained"] == {"file": "lora-kohya.safetensors", "sha256": hashlib.sha256(own).hexdigest(), "weight": 1.0}
    assert (told["kind"], told["rank"], set(told["files"])) == ("svd", 2, {name for name in files if name.startswith("merged/")})
    result, theirs = reading.read_path(folder / told["files"][0], "sd1"), reading.read_path(file, "sd1")
    ours = reading.read_path(folder / "lora-kohya.safetensors", "sd1")
    left_out, whole = 0.0, 0.0
    for path, weight in frozen.items():
        exact = update(ours, path, weight) + update(theirs, path, weight)
        left_out += float((update(result, path, weight) - exact).norm()) ** 2
        whole += float(exact.norm()) ** 2
    assert told["weight_error"] == pytest.approx((left_out / whole) ** 0.5, rel=1e-3)
    assert told["output_error_at"] in PATHS
    assert (
        f"| `merged` | svd with 1 other adapter: weights differ from the weighted sum by {100 * told['weight_error']:.2g} %"
        in (folder / "README.md").read_text()
    )
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {*files, MANIFEST}


def test_a_base_that_has_the_adapter_is_a_whole_base(packs: Packs, frozen: Mapping[str, Tensor]):
    folder = committed(packs, frozen, {"fuse": True, "weight": 0.5})
    own = reading.read_path(folder / "lora-kohya.safetensors", "sd1")
    for path, weight in weights_of(folder / "base", PATHS).items():
        wanted = frozen[path] + 0.5 * update(own, path, frozen[path])
        assert torch.allclose(weight.float(), wanted, rtol=2**-10, atol=1e-6)  # the base is in half precision
    before, after = (load_file(next((root / "vae").glob("*.safetensors"))) for root in (BASE_MODEL, folder / "base"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = base_model.inspect(spec.BaseModelSpec(uri=(folder / "base").as_uri()), Folder((packs.folder / "cache").as_uri()))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert found.family == "sd1"
    assert found.digest != manifest["base_digest"]
    assert manifest["merge"].pop("trained")["weight"] == 0.5
    assert 0 < manifest["merge"].pop("weight_error") < 1e-3
    assert manifest["merge"] == {"fuse": True, "num_modules": 2}
    for name, file in artifact_manifest.parse((folder / MANIFEST).read_bytes()).files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == file.sha256


class Killed(BaseException):
    """kill -9, as far as the store can tell."""


def test_a_kill_in_the_middle_leaves_no_base_and_the_next_attempt_is_whole(
    packs: Packs, frozen: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
):
    style = ready(packs, {"fuse": True})
    put, names = Folder.put, list[str]()

    def dies(folder: Folder, name: str, data: bytes | Path) -> None:
        if name == "base/model_index.json":
            raise Killed
        names.append(name)
        put(folder, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", dies)
        with pytest.raises(Killed):
            artifact.commit(style, trained(frozen), Progress(step=6), samples=None)
    assert len(names) > 5, "all other files of the base are there"
    assert artifact.existing(style) is None
    assert not (place(style) / "base" / "model_index.json").exists()
    found = artifact.commit(style, trained(frozen), Progress(step=6), samples=None)
    assert found == artifact.existing(style)
    assert (place(style) / "base" / "model_index.json").exists()


def test_what_it_cannot_be_combined_with_is_found_before_anything_trains(packs: Packs, frozen: Mapping[str, Tensor]):
    whole = other(packs.folder, frozen)
    half = packs.folder / "half.safetensors"
    half.write_bytes(whole.read_bytes()[:-20])
    numbers = made.on(layers(frozen), "lora", 1)
    numbers = replace(
        numbers, modules=tuple(each.with_tensors({**each.tensors, "A": each.tensors["A"] * torch.nan}) for each in numbers.modules)
    )
    broken = made.file(packs.folder, "nan", numbers)
    others_base = other(packs.folder, frozen, "base", **{"lorafleet.base_digest": "ab" * 32})
    wide = other(packs.folder, frozen, "wide", more_inputs=8)
    on = layers(frozen)
    style = ready(packs, {"adapters": [{"uri": whole.as_uri()}]})
    artifact_merge.check(style, on)
    cases = {half: "cut short", broken: "not finite", others_base: "was trained on another base", wide: "is of a base of other shapes"}
    for file, why in {**cases, packs.folder / "none.safetensors": "there is no such file"}.items():
        merge = MergeSpec(adapters=(MergedWithSpec(uri=whole.as_uri()), MergedWithSpec(uri=file.as_uri())))
        output = style.spec.output.model_copy(update={"merge": merge})
        with pytest.raises(RunFailed, match=why) as caught:
            artifact_merge.check(replace(style, spec=style.spec.model_copy(update={"output": output})), on)
        assert caught.value.message.startswith(f"output.merge.adapters[1].uri: {file.as_uri()}: ")
        assert (caught.value.reason, caught.value.retryable) == ("MERGE_NOT_USABLE", False)


@pytest.mark.proof
def test_in_a_pack_each_style_is_merged_as_its_own_spec_says(tmp_path: Path, group: Group, frozen: Mapping[str, Tensor]):
    packs = Packs(tmp_path, group)
    file, missing = other(packs.folder, frozen), packs.folder / "none.safetensors"
    asked: dict[str, dict[str, Any]] = {
        "one": {"merge": {"adapters": [{"uri": file.as_uri()}]}},
        "fused": {"merge": {"fuse": True}},
        "plain": {},
        "wrong": {"merge": {"adapters": [{"uri": missing.as_uri()}]}},
    }
    styles = [packs.style(name, output=output, training={"max_steps": 1}) for name, output in asked.items()]
    endings = packs.train(*styles).endings
    folders = {name: packs.folder / name / "adapter" for name in asked}
    assert [how if isinstance(how, str) else how.reason for how in endings.values()].count("succeeded") == 3
    assert (folders["one"] / "merged" / "lora-kohya.safetensors").is_file()
    assert (folders["fused"] / "base" / "model_index.json").is_file()
    assert {path.name for path in folders["plain"].iterdir() if path.is_dir()} == set()
    assert not folders["wrong"].exists()
