"""The client's download of artifacts: all files of one, every SHA-256 checked, or nothing."""
# Made by scripts/make_sync_client.py from lorafleet/aio/downloads.py: change that one, then run `make sync-client`.

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorafleet import download as downloading
from lorafleet.blobs import Blobs, blobs_at
from lorafleet.contract.artifact_manifest import ArtifactManifest
from lorafleet.errors import FailedPrecondition, LorafleetError
from lorafleet.signed_blobs import SignedBlobs
from lorafleet.states import label, name_of
from lorafleet.sync.adapters import Adapters
from lorafleet.sync.generations import Generations
from lorafleet.sync.jobs import Jobs
from lorafleet.transport import sync_io
from lorafleet.v1 import adapter_service_pb2 as adapter_pb
from lorafleet.v1 import training_service_pb2 as pb

NOT_OFFERED = {"UNIMPLEMENTED", "CANNOT_SIGN"}  # an older server; a store that cannot sign


class Downloads(Jobs, Adapters, Generations):
    """The client's download of artifacts."""

    def download(
        self, job: str, folder: str | Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> ArtifactManifest:
        """Download a job's artifact to `folder`, which must be absent or empty. `on_progress` gets the bytes done and in total.

        Several files are fetched at once, and interrupted ones are resumed. Raises NotFound, FailedPrecondition
        (NO_ARTIFACT, NOT_EMPTY), and Damaged when a file is not the one that was committed; then nothing is left behind.
        """
        found = self.get(job)
        if not found.HasField("artifact"):
            raise FailedPrecondition(f"{found.name} is {label(found)} and has no artifact", reason="NO_ARTIFACT")
        return self._fetched(found.artifact, lambda: self.sign_artifact(found.name), folder, on_progress)

    def download_adapter(
        self, version: str, folder: str | Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> ArtifactManifest:
        """Download a version of an adapter, such as `fox@production`, as `download` does. Raises FailedPrecondition (NO_ARTIFACT) for one
        that is purged."""
        found = self.get_adapter_version(version)
        if found.state == adapter_pb.ADAPTER_VERSION_STATE_PURGED:
            raise FailedPrecondition(f"{found.name} is purged: its files are gone", reason="NO_ARTIFACT")
        if not found.artifact.manifest_sha256:
            raise FailedPrecondition(f"{found.name} has no files: {found.message or 'it is not copied yet'}", reason="NO_ARTIFACT")
        return self._fetched(found.artifact, lambda: self.sign_adapter_version(found.name), folder, on_progress)

    def download_generation(
        self, generation: str, folder: str | Path, *, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> ArtifactManifest:
        """Download a generation's pictures, sheet and generation.json, as `download` does."""
        found = self.get_generation(generation)
        if not found.HasField("artifact"):
            raise FailedPrecondition(f"{found.name} is {name_of(found.state)} and has no pictures to download", reason="NO_ARTIFACT")
        return self._fetched(found.artifact, lambda: self.sign_generation(found.name), folder, on_progress)

    def _fetched(
        self, artifact: pb.Artifact, sign: Callable[[], Any], folder: str | Path, on_progress: Callable[[int, int], None]
    ) -> ArtifactManifest:
        blobs = self._blobs(artifact, sign)

        def fetch(stop: threading.Event) -> ArtifactManifest:
            return downloading.download(blobs, artifact.manifest_sha256, Path(folder), on_progress=on_progress, stop=stop)

        return sync_io.in_thread(fetch)

    def _blobs(self, artifact: pb.Artifact, sign: Callable[[], Any]) -> Blobs:
        """By signed URLs, without credentials of the store, where the server offers them; else as this machine can reach the store."""
        if artifact.uri.startswith("s3://"):
            try:
                signed = sign()
            except LorafleetError as error:
                if error.reason not in NOT_OFFERED:
                    raise
            else:
                return SignedBlobs({file.path: file.url for file in signed.files})
        return blobs_at(artifact.uri)
