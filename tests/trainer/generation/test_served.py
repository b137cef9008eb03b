"""A server's worker draws what `lorafleet generate` draws, warm or cold, and goes on where another was killed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorafleet import generation_spec
from lorafleet.contract.artifact_manifest import parse
from lorafleet.contract.run_manifest import Task
from lorafleet.errors import RunFailed
from lorafleet.spec import ClusterSpec
from tests.trainer.generation.conftest import Loaded
from trainer.generation import request as requests
from trainer.generation.drawing import Drawing
from trainer.storage import Folder
from trainer.work import generation
from trainer.work.generation import Worker

QUICK = {"num_inference_steps": 1, "guidance_scale": 1.0, "prompts": ["an emoji of cat face"]}
NAME = "tenants/acme/adapters/sepia/versions/3"


class Told:
    """What a reporter is told; it asks to stop after some pictures."""

    def __init__(self, stops_after: int | None = None) -> None:
        self.progresses: list[dict[str, Any]] = []
        self.stops_after = stops_after

    def progress(self, job: str, **changes: Any) -> None:
        self.progresses.append(changes)

    def must_stop(self, job: str) -> bool:
        return self.stops_after is not None and len(self.files) >= self.stops_after

    @property
    def files(self) -> list[str]:
        return [each["file"] for each in self.progresses if "file" in each]


def version(of: Loaded, folder: Path) -> dict[str, Any]:
    """A committed version of the file `lora`, as the service has resolved it."""
    folder.mkdir()
    data = (of.adapters / "lora.safetensors").read_bytes()
    (folder / "sepia.safetensors").write_bytes(data)
    listed = {"sepia.safetensors": {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    manifest = json.dumps({"format": "lorafleet-artifact-1", "files": listed}).encode()
    (folder / "manifest.json").write_bytes(manifest)
    return {NAME: {"version": NAME, "folder": folder.as_uri(), "manifest_sha256": hashlib.sha256(manifest).hexdigest()}}


def task(of: Loaded, out: Path, **fields: Any) -> Task:
    asked = generation.parsed({"base_model": {"uri": of.base.uri}, **QUICK, **fields})
    return Task(name="tenants/acme/generations/foxes", spec=asked.model_dump(mode="json"), output_uri=out.as_uri())


def do(worker: Worker, of: Loaded, out: Path, told: Told | None = None, **fields: Any) -> Any:
    reporter: Any = told or Told()
    return worker.do(task(of, out, **fields), ClusterSpec(), reporter)


def warm(of: Loaded) -> Worker:
    """A worker that has this base loaded."""
    worker = Worker()
    worker._sampler = of.sampler
    return worker


def pixels(folder: Path) -> list[bytes]:
    """Of every picture, in the order of their bits: names differ where adapters are called otherwise."""
    found = [path for path in folder.glob("*.png") if not path.name.startswith("sheet")]
    return sorted(np.asarray(Image.open(path)).tobytes() for path in found)


def test_a_version_of_the_registry_draws_the_bits_that_its_file_draws(emoji: Loaded, tmp_path: Path):
    adapters = [[], [{"uri": NAME, "weight": 0.5}]]
    done = do(warm(emoji), emoji, tmp_path / "served", adapters=adapters, resolved=version(emoji, tmp_path / "version"), seeds=[1, 2])
    files = [[], [{"uri": (emoji.adapters / "lora.safetensors").as_uri(), "weight": 0.5}]]
    spec = generation_spec.parse({"base_model": {"uri": emoji.base.uri}, **QUICK, "adapters": files, "seeds": [1, 2]})
    out = tmp_path / "files"
    list(Drawing(requests.checked(spec, emoji.base, emoji.sampler, out.as_uri()), emoji.sampler, Folder(out.as_uri())).draw())
    served = tmp_path / "served" / "pictures"
    assert pixels(served) == pixels(out)
    manifest = (served / "manifest.json").read_bytes()
    assert done.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    listed = parse(manifest).files
    assert {*listed} == {path.name for path in served.iterdir()} - {"manifest.json"}
    assert all(hashlib.sha256((served / name).read_bytes()).hexdigest() == file.sha256 for name, file in listed.items())
    assert sum(name.startswith("sepia-v3-") for name in listed) == 2


def test_a_cold_worker_draws_what_a_warm_one_draws(emoji: Loaded, tmp_path: Path):
    do(warm(emoji), emoji, tmp_path / "warm")
    do(Worker(), emoji, tmp_path / "cold")
    assert pixels(tmp_path / "warm" / "pictures") == pixels(tmp_path / "cold" / "pictures")


def test_the_base_stays_for_the_next_request_and_goes_for_another_precision(emoji: Loaded, tmp_path: Path):
    worker = warm(emoji)
    do(worker, emoji, tmp_path / "one")
    assert worker._sampler is emoji.sampler
    do(worker, emoji, tmp_path / "two", precision="bf16")
    assert worker._sampler is not emoji.sampler


def test_a_second_attempt_draws_what_the_first_has_left(emoji: Loaded, tmp_path: Path):
    fields = {"seeds": list(range(10))}
    first, second = Told(stops_after=8), Told()
    assert do(warm(emoji), emoji, tmp_path / "out", first, **fields) is None
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").glob("*.png")}
    assert len(before) == 8
    assert do(warm(emoji), emoji, tmp_path / "out", second, **fields) is not None
    assert {name: (tmp_path / "out" / "pictures" / name).stat().st_mtime_ns for name in before} == before
    assert (second.files[:8], len(second.files)) == (first.files, 10)
    do(warm(emoji), emoji, tmp_path / "at-once", **fields)
    assert pixels(tmp_path / "out" / "pictures") == pixels(tmp_path / "at-once" / "pictures")


def test_what_is_committed_is_not_drawn_again(emoji: Loaded, tmp_path: Path):
    first, again = do(warm(emoji), emoji, tmp_path), Told()
    assert do(Worker(), emoji, tmp_path, again) == first
    assert again.progresses == []


def test_a_version_that_is_not_what_it_was_draws_nothing(emoji: Loaded, tmp_path: Path):
    resolved = version(emoji, tmp_path / "version")
    (tmp_path / "version" / "sepia.safetensors").write_bytes((emoji.adapters / "other.safetensors").read_bytes())
    with pytest.raises(RunFailed, match=r"sepia\.safetensors") as failed:
        do(warm(emoji), emoji, tmp_path / "out", adapters=[[{"uri": NAME}]], resolved=resolved)
    assert not failed.value.retryable


def test_all_that_is_wrong_with_a_request_is_told_at_once(emoji: Loaded, tmp_path: Path):
    with pytest.raises(RunFailed) as failed:
        do(warm(emoji), emoji, tmp_path, width=65, height=63)
    assert (failed.value.reason, failed.value.retryable) == ("INVALID_SPEC", False)
    assert {line.split(":")[0] for line in failed.value.message.splitlines()} == {"width", "height"}


def test_a_store_that_fails_in_the_middle_of_a_sheet_is_tried_again(emoji: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put = Folder.put

    def fails(folder: Folder, path: str, data: bytes | Path) -> None:
        if path.startswith("sheet"):
            raise RunFailed("the store does not answer", reason="STORE_UNREACHABLE", retryable=True)
        put(folder, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", fails)
        with pytest.raises(RunFailed) as failed:
            do(warm(emoji), emoji, tmp_path)
    assert failed.value.retryable
    assert not (tmp_path / "pictures" / "manifest.json").exists()
    assert do(warm(emoji), emoji, tmp_path) is not None
