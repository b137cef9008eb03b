"""What a job goes on from is what it was when the job was created, by its digest; nothing else is taken."""

import hashlib
import json
from pathlib import Path

import pytest

from lorafleet.errors import InvalidInput, RunFailed
from lorafleet.spec_adapter import AdapterSpec, StartSpec
from trainer.adapters import start
from trainer.adapters.layout import Layout


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, str]:
    """The folder, and the digest of its manifest."""
    (tmp_path / "style.safetensors").write_bytes(b"weights")
    files = {"style.safetensors": {"sha256": sha256(b"weights"), "size_bytes": 7}}
    manifest = json.dumps({"format": "lorafleet-artifact-1", "files": files}).encode()
    (tmp_path / "manifest.json").write_bytes(manifest)
    return tmp_path, sha256(manifest)


def test_an_artifact_of_that_digest_is_taken(artifact: tuple[Path, str]):
    folder, digest = artifact
    (source,) = start.sources(f"file://{folder}", digest)
    assert (source.name, source.data) == ("style.safetensors", b"weights")
    (source,) = start.sources(f"file://{folder}/style.safetensors", sha256(b"weights"))
    assert source.data == b"weights"


@pytest.mark.parametrize("name", ["style.safetensors", "manifest.json"])
def test_one_that_has_changed_is_not(artifact: tuple[Path, str], name: str):
    folder, digest = artifact
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(InvalidInput, match=f"^{name} is not what it was when adapter.start was written"):
        start.sources(f"file://{folder}", digest)
    assert start.sources(f"file://{folder}"), "without a digest it may be any"


def test_one_that_has_lost_its_manifest_or_gained_a_file_is_not(artifact: tuple[Path, str]):
    folder, digest = artifact
    (folder / "manifest.json").rename(folder / "gone")
    with pytest.raises(InvalidInput, match=r"^manifest.json is not what it was"):
        start.sources(f"file://{folder}", digest)
    (folder / "gone").rename(folder / "manifest.json")
    (folder / "style.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(InvalidInput, match=r"^other.safetensors is not what it was"):
        start.sources(f"file://{folder}", digest)
    with pytest.raises(InvalidInput, match=r"^other.safetensors is not what it was"):
        start.sources(f"file://{folder}/other.safetensors", digest)


def test_a_job_that_no_service_has_looked_up_is_told():
    with pytest.raises(RunFailed, match=r"^adapter.start.job: first: only the service knows where the artifact of a job or a version lies"):
        start.named(StartSpec(job="first"), "sd1", AdapterSpec(), Layout(()), {}, job="second")
