"""Downloads every artifact of a batch, each to its own folder. Can be repeated: what is there already is kept."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorafleet.blobs import Blobs, opener
from lorafleet.contract.layout import MANIFEST
from lorafleet.download import download
from lorafleet.errors import LorafleetError
from lorafleet.states import job_id
from lorafleet.v1 import training_service_pb2 as pb

AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What became of one artifact."""

    job: str
    folder: Path
    is_new: bool = False
    size_bytes: int = 0  # of what was brought now
    error: str = ""


def download_all(jobs: Sequence[pb.TrainingJob], folder: Path) -> Iterator[Fetched]:
    """The artifacts of those jobs that have one, in order, each in `folder`/{job}; one that fails does not stop the others."""
    ready = [job for job in jobs if job.HasField("artifact")]
    fetch = partial(_fetch, folder=folder, open_at=opener())
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from pool.map(fetch, ready)
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch(job: pb.TrainingJob, folder: Path, open_at: Callable[[str], Blobs]) -> Fetched:
    folder = folder / job_id(job)
    if _is_there(job, folder):
        return Fetched(job=job.name, folder=folder)
    try:
        manifest = download(open_at(job.artifact.uri), job.artifact.manifest_sha256, folder)
    except (LorafleetError, OSError) as error:
        return Fetched(job=job.name, folder=folder, error=str(error))
    return Fetched(job=job.name, folder=folder, is_new=True, size_bytes=manifest.size_bytes)


def _is_there(job: pb.TrainingJob, folder: Path) -> bool:
    """A folder is put in place whole, so its manifest speaks for all of it."""
    manifest = folder / MANIFEST
    return manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() == job.artifact.manifest_sha256
