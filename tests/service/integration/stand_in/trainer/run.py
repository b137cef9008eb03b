"""Stands in for the trainer: reports over real gRPC as a driver does, trains nothing, ends when it is told to.

The label `until` names a file: it trains until that is there. A stop directive ends it too.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import grpc

from lorafleet.contract.layout import JobLayout, join
from lorafleet.contract.run_manifest import RunManifest
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1 import training_service_pb2 as api

print(f"first line at {time.time():.2f}", flush=True)


class Reporter:
    def __init__(self, manifest: RunManifest, token: str) -> None:
        self._run = manifest.run
        self._stub = rpc.ReportServiceStub(grpc.insecure_channel(manifest.report_address))
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._sequence = 0

    def report(self, **event: object) -> pb.ReportResponse:
        """Rides out an outage of the control plane."""
        self._sequence += 1
        happened = pb.RunEvent(sequence=self._sequence, **event)  # type: ignore[arg-type]
        request = pb.ReportRequest(run=self._run, source="driver", events=[happened])
        while True:
            try:
                return self._stub.Report(request, metadata=self._metadata, timeout=5)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
                    raise
                time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--token-file", required=True)
    arguments = parser.parse_args()
    manifest = RunManifest.model_validate_json(Path(arguments.manifest.removeprefix("file://")).read_text())
    [style] = manifest.pack
    reporter = Reporter(manifest, Path(arguments.token_file).read_text())
    go = Path(style.spec.labels["until"])
    step = 0
    while True:
        step += 1
        answer = reporter.report(progress=api.Progress(phase="training", step=step, max_steps=1000))
        if answer.directives:
            reporter.report(ended=pb.StyleEnded(outcome=pb.STYLE_OUTCOME_STOPPED, step=step))
            return
        if go.exists():
            break
        time.sleep(0.2)
    print(f"trained {step} steps", flush=True)
    artifact = _commit(JobLayout(style.output_uri).adapter)
    reporter.report(ended=pb.StyleEnded(outcome=pb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact, step=step))


def _commit(folder: str) -> api.Artifact:
    manifest = json.dumps({"files": {}}).encode()
    path = Path(join(folder, "manifest.json").removeprefix("file://"))
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    return api.Artifact(uri=folder, manifest_sha256=hashlib.sha256(manifest).hexdigest())


if __name__ == "__main__":
    main()
