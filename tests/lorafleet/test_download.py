"""An artifact arrives whole and as it was committed, or not at all."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest

from lorafleet.blobs import LocalBlobs, blobs_at
from lorafleet.contract import artifact_manifest
from lorafleet.download import Damaged, download
from lorafleet.errors import FailedPrecondition, InvalidInput, LorafleetError, NotFound

FILES = {"kohya/fox.safetensors": b"weights" * 1000, "README.md": b"a fox"}


def manifest_of(files: dict[str, bytes]) -> bytes:
    rows = {path: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()}
    return json.dumps({"format": "lorafleet-artifact-1", "job": "tenants/acme/jobs/fox", "files": rows}).encode()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    for path, data in {**FILES, "manifest.json": manifest_of(FILES)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def fetch(artifact: Path, into: Path) -> artifact_manifest.ArtifactManifest:
    return download(LocalBlobs(artifact), hashlib.sha256(manifest_of(FILES)).hexdigest(), into)


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "store")


def test_download_brings_every_file_and_the_manifest(artifact: Path, tmp_path: Path) -> None:
    manifest = fetch(artifact, tmp_path / "deep" / "fox")
    assert {path: (tmp_path / "deep/fox" / path).read_bytes() for path in FILES} == FILES
    assert (tmp_path / "deep/fox/manifest.json").is_file()
    assert manifest.size_bytes == sum(len(data) for data in FILES.values())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fox"]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda data: b"W" + data[1:],
        lambda data: data + b"more",
        lambda data: data[:-1],
        lambda data: b"",
    ],
    ids=["changed", "longer", "shorter", "emptied"],
)
def test_tampered_file_is_refused_and_nothing_is_left_behind(artifact: Path, tmp_path: Path, tamper: object) -> None:
    path = artifact / "kohya/fox.safetensors"
    path.write_bytes(tamper(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Damaged, match=r"kohya/fox\.safetensors"):
        fetch(artifact, tmp_path / "fox")
    assert left_behind(tmp_path) == []


def test_tampered_manifest_is_refused(artifact: Path, tmp_path: Path) -> None:
    (artifact / "manifest.json").write_bytes(manifest_of({"README.md": b"a fox"}))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        fetch(artifact, tmp_path / "fox")
    assert left_behind(tmp_path) == []


def test_half_written_artifact_is_refused_and_nothing_is_left_behind(artifact: Path, tmp_path: Path) -> None:
    """The manifest is written last: without it the files are nothing yet."""
    (artifact / "manifest.json").unlink()
    with pytest.raises(NotFound, match=r"manifest\.json"):
        fetch(artifact, tmp_path / "fox")
    assert left_behind(tmp_path) == []


def test_missing_file_is_refused_and_nothing_is_left_behind(artifact: Path, tmp_path: Path) -> None:
    (artifact / "README.md").unlink()
    with pytest.raises(NotFound, match=r"README\.md"):
        fetch(artifact, tmp_path / "fox")
    assert left_behind(tmp_path) == []


def test_folder_that_holds_something_is_left_as_it_is(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "mine").write_text("mine")
    with pytest.raises(FailedPrecondition, match="not empty"):
        fetch(artifact, tmp_path / "fox")
    assert [path.name for path in (tmp_path / "fox").iterdir()] == ["mine"]


def test_empty_folder_is_filled(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    fetch(artifact, tmp_path / "fox")
    assert (tmp_path / "fox" / "README.md").is_file()


def test_endless_file_is_cut_off_soon_after_its_size(tmp_path: Path) -> None:
    class Endless:
        read = 0

        @contextmanager
        def open(self, path: str, *, start: int = 0) -> Iterator[IO[bytes]]:
            yield BytesIO(manifest_of({"big": b"x"})) if path == "manifest.json" else self.source()

        def source(self) -> IO[bytes]:
            stream = BytesIO()
            stream.read = self.more  # type: ignore[method-assign, assignment]
            return stream

        def more(self, size: int = -1) -> bytes:
            self.read += size
            return b"x" * size

    endless = Endless()
    with pytest.raises(Damaged, match="is not 1 bytes long"):
        download(endless, hashlib.sha256(manifest_of({"big": b"x"})).hexdigest(), tmp_path / "fox")
    assert endless.read <= 2**21


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a//b", "./a", "a/", "", "manifest.json", "a\nb", "a\x1bb"]
)
def test_unsafe_file_name_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        artifact_manifest.parse(manifest_of({path: b"x"}))


def test_files_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(InvalidInput, match="case alone"):
        artifact_manifest.parse(manifest_of({"A.txt": b"x", "a.txt": b"x"}))


def test_something_else_than_a_manifest_is_refused() -> None:
    with pytest.raises(InvalidInput):
        artifact_manifest.parse(b"<html>")


def test_unknown_kind_of_store_is_named() -> None:
    with pytest.raises(LorafleetError, match="neither file:// nor s3://"):
        blobs_at("gs://bucket")


@pytest.mark.parametrize("name", ["../planted", "planted\x01", "/planted"])
def test_no_message_quotes_the_names_in_a_manifest(name: str):
    """It comes from a store that others can write to."""
    text = json.dumps({"format": "lorafleet-artifact-1", "files": {name: {"size_bytes": 1, "sha256": "0" * 64}}}).encode()
    with pytest.raises(InvalidInput) as refused:
        artifact_manifest.parse(text)
    assert "planted" not in refused.value.message
