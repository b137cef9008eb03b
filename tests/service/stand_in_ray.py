"""A Ray that is cheap: its Jobs API over HTTP, and drivers that are threads. They report over real gRPC and train nothing.

A driver reports each step, obeys a stop, and leaves an artifact of one file; it rides out a control plane that is away. One that
stands by waits for a run, and goes on with that.
"""

import hashlib
import json
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from lorafleet.contract.layout import JobLayout, join
from lorafleet.contract.run_manifest import RUN_TOKEN_ENV, RunManifest, Style
from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from lorafleet.v1 import training_service_pb2 as api

STEP_S = 0.05
WEIGHTS = b"weights"


@dataclass
class StandInRay:
    """What was submitted, and how it stands."""

    address: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/api/version":
            return 200, {"version": "4", "ray_version": "2.60.0", "session_name": "session-1"}
        if path.startswith("/api/v0/logs/file?"):
            return 200, self.logs[path.partition("filename=job-driver-")[2].partition(".log")[0]]
        _, _, _, run_id, *verb = path.split("/")
        if method == "POST" and not run_id:
            return self._submit(body)
        if not run_id:
            return 200, [{"submission_id": id, **job} for id, job in self.jobs.items()]
        if run_id not in self.jobs:
            return 404, f"Job {run_id} does not exist"
        if verb == ["stop"]:
            self.jobs[run_id]["status"] = "STOPPED"
            return 200, {"stopped": True}
        return 200, self.jobs[run_id]

    def _submit(self, body: dict[str, Any]) -> tuple[int, Any]:
        run_id = body["submission_id"]
        self.jobs[run_id] = {
            "status": "RUNNING",
            "message": "",
            "driver_exit_code": None,
            "driver_node_id": "cafe01",
            "metadata": body["metadata"],
        }
        self.logs[run_id] = ""
        words = shlex.split(body["entrypoint"])
        manifest = manifest_at(words[words.index("--manifest") + 1])
        threading.Thread(target=Driver(self, manifest, body["runtime_env"]["env_vars"][RUN_TOKEN_ENV]).run, daemon=True).start()
        return 200, {"submission_id": run_id}


class Driver:
    """One run. Its log has a line for each step."""

    def __init__(self, ray: StandInRay, manifest: RunManifest, token: str) -> None:
        self._ray = ray
        self._manifest = manifest
        self._submitted = manifest.run
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._sequence = 0

    def run(self) -> None:
        with self._channel() as channel:
            self._stub = rpc.ReportServiceStub(channel)
            if self._manifest.standby is not None:
                self._stand_by()
            for style in self._manifest.pack:
                self._train(style)
        if self._job["status"] == "RUNNING":
            self._job.update(status="SUCCEEDED", driver_exit_code=0)

    def _channel(self) -> grpc.Channel:
        address, roots = self._manifest.report_address, self._manifest.report_tls_ca
        options = [("grpc.max_reconnect_backoff_ms", 3000), ("grpc.initial_reconnect_backoff_ms", 200)]  # as the trainer's
        if not self._manifest.report_tls:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots.encode() if roots else None), options=options)

    @property
    def _job(self) -> dict[str, Any]:
        return self._ray.jobs[self._submitted]

    def _stand_by(self) -> None:
        """Until there is a run to go on with, or nothing is coming."""
        while not self._ray.closing.is_set():
            answer = self._told(pb.ReportRequest(run=self._submitted, source="worker-0", idle=True))
            if answer.next_run.run:
                self._manifest = manifest_at(answer.next_run.manifest_uri)
                self._metadata = (("authorization", f"Bearer {answer.next_run.token}"),)
                return
            if any(directive.action == pb.DIRECTIVE_ACTION_RELEASE for directive in answer.directives):
                return
            self._ray.closing.wait(STEP_S)

    def _train(self, style: Style) -> None:
        steps = style.spec.training.max_steps
        for step in range(1, steps + 1):
            self._ray.logs[self._submitted] += f"step {step}\n"
            progress = api.Progress(phase="training", step=step, max_steps=steps, loss=1 / step)
            if self._report(job=style.job, progress=progress).directives:
                self._report(job=style.job, ended=pb.StyleEnded(outcome=pb.STYLE_OUTCOME_STOPPED, step=step))
                return
            if self._ray.closing.wait(STEP_S):
                return
        artifact = commit(JobLayout(style.output_uri).adapter)
        self._report(job=style.job, ended=pb.StyleEnded(outcome=pb.STYLE_OUTCOME_SUCCEEDED, artifact=artifact, step=steps))

    def _report(self, **happened: Any) -> pb.ReportResponse:
        self._sequence += 1
        event = pb.RunEvent(sequence=self._sequence, **happened)
        return self._told(pb.ReportRequest(run=self._manifest.run, source="driver", events=[event]))

    def _told(self, request: pb.ReportRequest) -> pb.ReportResponse:
        while not self._ray.closing.is_set():
            try:
                return self._stub.Report(request, metadata=self._metadata, timeout=5)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
                    raise
                time.sleep(STEP_S)
        return pb.ReportResponse()


def manifest_at(uri: str) -> RunManifest:
    return RunManifest.model_validate_json(Path(uri.removeprefix("file://")).read_text())


def commit(folder: str) -> api.Artifact:
    """An artifact of one file, its manifest last."""
    path = Path(folder.removeprefix("file://"))
    path.mkdir(parents=True)
    (path / "adapter.safetensors").write_bytes(WEIGHTS)
    file = {"size_bytes": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    manifest = json.dumps({"format": "lorafleet-artifact-1", "files": {"adapter.safetensors": file}}).encode()
    Path(join(str(path), "manifest.json")).write_bytes(manifest)
    return api.Artifact(uri=folder, manifest_sha256=hashlib.sha256(manifest).hexdigest())


@contextmanager
def stand_in_ray() -> Iterator[StandInRay]:
    """A Ray at `address`, for `lorafleet serve --ray-address`."""
    ray = StandInRay()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self._answer(json.loads(body) if body else None)

        def _answer(self, body: Any) -> None:
            status, value = ray.answer(self.command, self.path, body)
            data = value.encode() if "/logs/" in self.path else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ray.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield ray
    finally:
        ray.closing.set()
        server.shutdown()
        server.server_close()
