"""Ray's Jobs API as Ray 2.60 behaves, in memory, behind httpx's transport: the facts that ray_jobs.py stands on."""

import json
from dataclasses import dataclass, field

import httpx

TOKEN = "ray-token"
NODE = "cafe01"


@dataclass
class FakeRay:
    session: str = "session-1"
    away: bool = False
    jobs: dict[str, dict] = field(default_factory=dict)
    submissions: list[dict] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    logs: dict[str, bytes] = field(default_factory=dict)  # by file name

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return httpx.Response(401, text="Unauthorized: Missing authentication token")
        if request.url.path == "/api/version":
            return httpx.Response(200, json={"version": "4", "ray_version": "2.60.0", "session_name": self.session})
        if request.url.path == "/api/v0/logs/file":
            return self._log(request.url.params)
        return self._jobs(request)

    def _log(self, asked: httpx.QueryParams) -> httpx.Response:
        assert asked["lines"] == "-1", "Ray answers the last 1,000 lines unless it is asked for all"
        text = self.logs.get(asked["filename"]) if asked["node_id"] == NODE else None
        if text is None:
            return httpx.Response(500, text=f"A file is not found at: /logs/{asked['filename']}")
        return httpx.Response(200, content=text)

    def _jobs(self, request: httpx.Request) -> httpx.Response:
        _, _, _, run_id, *verb = request.url.path.split("/")
        if request.method == "GET" and not run_id:
            return httpx.Response(200, json=list(self.jobs.values()))
        if request.method == "POST" and not run_id:
            return self._submit(json.loads(request.content))
        if run_id not in self.jobs:
            return httpx.Response(404, text=f"Job {run_id} does not exist")
        if verb == ["stop"]:
            self.jobs[run_id]["status"] = "STOPPED"
            return httpx.Response(200, json={"stopped": True})
        return httpx.Response(200, json=self.jobs[run_id])

    def _submit(self, body: dict) -> httpx.Response:
        run_id = body["submission_id"]
        if run_id in self.jobs:  # seen: a duplicate is a traceback with HTTP 500
            return httpx.Response(500, text=f"ValueError: Job with submission_id {run_id} already exists.")
        self.submissions.append(body)
        self.jobs[run_id] = {
            "type": "SUBMISSION",
            "submission_id": run_id,
            "status": "PENDING",
            "message": "",
            "metadata": body["metadata"],
            "driver_exit_code": None,
            "driver_node_id": NODE,
        }
        return httpx.Response(200, json={"job_id": run_id, "submission_id": run_id})

    def replace_head(self) -> None:
        self.session, self.jobs = "session-2", {}
