"""The client's download of artifacts: all files of one, every SHA-256 checked, or nothing."""
# Made by scripts/make_sync_client.py from lorafleet/aio/downloads.py: change that one, then run `make sync-client`.

import threading
from collections.abc import Callable
from pathlib import Path

from lorafleet import download as downloading
from lorafleet.blobs import Blobs, blobs_at
from lorafleet.contract.artifact_manifest import ArtifactManifest
from lorafleet.errors import FailedPrecondition, LorafleetError
from lorafleet.signed_blobs import SignedBlobs
from lorafleet.states import label
from lorafleet.sync.jobs import Jobs
from lorafleet.transport import sync_io
from lorafleet.v1 import training_service_pb2 as pb

NOT_OFFERED = {"UNIMPLEMENTED", "CANNOT_SIGN"}  # an older server; a store that cannot sign


class Downloads(Jobs):
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
        artifact = found.artifact
        blobs = self._blobs(found)

        def fetch(stop: threading.Event) -> ArtifactManifest:
            return downloading.download(blobs, artifact.manifest_sha256, Path(folder), on_progress=on_progress, stop=stop)

        return sync_io.in_thread(fetch)

    def _blobs(self, job: pb.TrainingJob) -> Blobs:
        """By signed URLs, without credentials of the store, where the server offers them; else as this machine can reach the store."""
        if job.artifact.uri.startswith("s3://"):
            try:
                signed = self.sign_artifact(job.name)
            except LorafleetError as error:
                if error.reason not in NOT_OFFERED:
                    raise
            else:
                return SignedBlobs({file.path: file.url for file in signed.files})
        return blobs_at(job.artifact.uri)
