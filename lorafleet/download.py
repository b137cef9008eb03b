"""Downloads an artifact to a folder: all of it, every SHA-256 checked, or nothing. Knows stores only as Blobs."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from lorafleet.blobs import Blobs
from lorafleet.contract import artifact_manifest
from lorafleet.contract.artifact_manifest import ArtifactFile, ArtifactManifest
from lorafleet.contract.layout import MANIFEST
from lorafleet.errors import FailedPrecondition, LorafleetError, Unavailable

CHUNK_BYTES = 2**20
AT_ONCE = 4  # files


class Stopped(LorafleetError):
    """The caller no longer wants the download."""

    reason = "STOPPED"


class Damaged(LorafleetError):
    """What lies in the store is not what was committed."""

    reason = "ARTIFACT_DAMAGED"


def download(
    blobs: Blobs,
    manifest_sha256: str,
    folder: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stop: threading.Event | None = None,
) -> ArtifactManifest:
    """Write the artifact to `folder`, which must be absent or empty; `on_progress` is called with the bytes done and the total.

    Raises Damaged when a file is missing or differs from what was committed, and Stopped once `stop` is set. Leaves nothing
    behind then.
    """
    _refuse_unless_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        manifest = _fetch_all(blobs, manifest_sha256, staged, on_progress, stop or threading.Event())
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
    _fetch_into(copy, blobs, path, file, threading.Event())
    return copy.getvalue()


def _refuse_unless_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FailedPrecondition(f"{folder} is not empty; name a new folder", reason="NOT_EMPTY")


def _fetch_all(
    blobs: Blobs, manifest_sha256: str, folder: Path, on_progress: Callable[[int, int], None], stop: threading.Event
) -> ArtifactManifest:
    """Several files at once. The first that fails stops the others, and its error is raised."""
    text, manifest = committed_manifest(blobs, manifest_sha256)
    failed = threading.Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        fetching = {
            pool.submit(_fetch, blobs, path, file, folder / path, _Either(stop, failed)): file for path, file in manifest.files.items()
        }
        done = 0
        try:
            for fetched in as_completed(fetching):
                fetched.result()
                done += fetching[fetched].size_bytes
                on_progress(done, manifest.size_bytes)
        except BaseException:  # Ctrl-C too: the pool is waited for
            failed.set()
            raise
    (folder / MANIFEST).write_bytes(text)
    return manifest


@dataclass(frozen=True)
class _Either:
    """Set when one of two events is."""

    one: threading.Event
    other: threading.Event

    def is_set(self) -> bool:
        return self.one.is_set() or self.other.is_set()


def _fetch(blobs: Blobs, path: str, file: ArtifactFile, target: Path, stop: _Either) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as copy:
        _fetch_into(copy, blobs, path, file, stop)


def _fetch_into(copy: IO[bytes], blobs: Blobs, path: str, file: ArtifactFile, stop: _Either | threading.Event) -> None:
    size_bytes, sha256 = _copy(blobs, path, copy, file.size_bytes, stop)
    if size_bytes != file.size_bytes:
        raise Damaged(f"{path} is not {file.size_bytes} bytes long")
    if sha256 != file.sha256:
        raise Damaged(f"{path} has SHA-256 {sha256}; {MANIFEST} says {file.sha256}")


def _copy(blobs: Blobs, path: str, target: IO[bytes], most_bytes: int, stop: _Either | threading.Event) -> tuple[int, str]:
    """Size and SHA-256 of what was copied; stops soon after `most_bytes`, so that a swapped file cannot fill the disk.

    A store that breaks off is asked again for what is missing, as long as each try brings something.
    """
    digest, size_bytes = hashlib.sha256(), 0
    while True:
        begun_at = size_bytes
        try:
            with blobs.open(path, start=size_bytes) as source:
                while size_bytes <= most_bytes and (chunk := source.read(CHUNK_BYTES)):
                    if stop.is_set():
                        raise Stopped("the download was stopped")
                    target.write(chunk)
                    digest.update(chunk)
                    size_bytes += len(chunk)
            return size_bytes, digest.hexdigest()
        except Unavailable:
            if size_bytes == begun_at:
                raise


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
