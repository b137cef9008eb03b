"""Brings an artifact to a folder: all of it, every SHA-256 checked, or nothing. Knows stores only as Blobs."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO

from lorafleet import artifact_manifest
from lorafleet.artifact_manifest import ArtifactFile, ArtifactManifest
from lorafleet.blobs import Blobs
from lorafleet.errors import FailedPrecondition, LorafleetError
from lorafleet.layout import MANIFEST

CHUNK_BYTES = 2**20


class Damaged(LorafleetError):
    """What lies in the store is not what was committed."""

    reason = "ARTIFACT_DAMAGED"


def download(
    blobs: Blobs, manifest_sha256: str, folder: Path, *, told: Callable[[int, int], None] = lambda done, total: None
) -> ArtifactManifest:
    """Write the artifact to `folder`, which must be absent or empty; `told` hears bytes done of bytes in all.

    Raises Damaged, and leaves nothing behind, when a file is missing or differs from what was committed.
    """
    _refuse_unless_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        manifest = _fetch_all(blobs, manifest_sha256, staged, told)
        staged.chmod(0o777 & ~_umask())  # mkdtemp's folders are private
        _refuse_unless_free(folder)
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest


def committed_manifest(blobs: Blobs, manifest_sha256: str) -> tuple[bytes, ArtifactManifest]:
    """manifest.json as it lies there, and what it says. Raises Damaged when it is not the one that was committed."""
    with blobs.open(MANIFEST) as source:
        text = source.read(artifact_manifest.MAX_BYTES)
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise Damaged(f"{MANIFEST} is not the one that the job committed")
    return text, artifact_manifest.parse(text)


def read(blobs: Blobs, path: str, file: ArtifactFile) -> bytes:
    """One file of an artifact, into memory. Raises Damaged when it is not the one that was committed."""
    copy = BytesIO()
    _fetch_into(copy, blobs, path, file)
    return copy.getvalue()


def _refuse_unless_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FailedPrecondition(f"{folder} is not empty; name a new folder", reason="NOT_EMPTY")


def _fetch_all(blobs: Blobs, manifest_sha256: str, folder: Path, told: Callable[[int, int], None]) -> ArtifactManifest:
    text, manifest = committed_manifest(blobs, manifest_sha256)
    done = 0
    for path, file in manifest.files.items():
        _fetch(blobs, path, file, folder / path)
        done += file.size_bytes
        told(done, manifest.size_bytes)
    (folder / MANIFEST).write_bytes(text)
    return manifest


def _fetch(blobs: Blobs, path: str, file: ArtifactFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as copy:
        _fetch_into(copy, blobs, path, file)


def _fetch_into(copy: IO[bytes], blobs: Blobs, path: str, file: ArtifactFile) -> None:
    with blobs.open(path) as source:
        size_bytes, sha256 = _copy(source, copy, most_bytes=file.size_bytes)
    if size_bytes != file.size_bytes:
        raise Damaged(f"{path} is not {file.size_bytes} bytes long")
    if sha256 != file.sha256:
        raise Damaged(f"{path} has SHA-256 {sha256}; {MANIFEST} says {file.sha256}")


def _copy(source: IO[bytes], target: IO[bytes], most_bytes: int) -> tuple[int, str]:
    """Size and SHA-256 of what was copied; stops soon after `most_bytes`, so that a swapped file cannot fill the disk."""
    digest, size_bytes = hashlib.sha256(), 0
    while size_bytes <= most_bytes and (chunk := source.read(CHUNK_BYTES)):
        target.write(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, digest.hexdigest()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
