"""Executes runs as Ray jobs, over the Ray Jobs REST API: on a local Ray, or on a cluster that is there already.

A run's submission id is its run id. Facts of Ray 2.60 that shape this file: a duplicate submission id answers HTTP 500,
so ask before posting; job states and logs die with the head node; asking for resources for the entry point, or for
environment variables, gives the driver another worker-pool key, and none of Ray's idle workers fits it any more.
"""

import asyncio
import shlex
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from lorafleet.contract.run_manifest import RUN_TOKEN_ENV
from lorafleet.errors import LorafleetError, Unavailable
from service.backends.base import Alive, Observation, RunRef, RunRequest
from service.backends.driver_message import MESSAGE_TAIL, last_lines, reason
from service.backends.http import Answer, Http
from service.backends.regions import regions
from service.control.attempts import Gone
from service.control.capacity import Hardware, beyond
from service.control.packing import EXCEEDS_CAPACITY

INSTANCE = "lorafleet_instance"  # in a job's metadata: whose run it is
LOG_TIMEOUT_S = "600"  # for all of it; Ray's own default is 30
NO_SUCH_FILE = "A file is not found"  # in HTTP 500: Ray has no other word for it
ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A Ray that answers. `session` changes when its head node is replaced."""

    url: str
    token: str | None
    session: str


@dataclass(frozen=True, kw_only=True)
class Submission:
    """How a run's driver is started there."""

    entrypoint: str
    runtime_env: dict[str, Any]


class JobDetails(TypedDict):
    """What Ray says of a job, as far as it is read here."""

    status: str
    submission_id: NotRequired[str | None]  # none of a job that was not submitted by this API
    metadata: NotRequired[dict[str, str] | None]
    driver_node_id: NotRequired[str | None]  # unset before there is a driver
    driver_exit_code: NotRequired[int | None]
    message: NotRequired[str | None]


class RayCluster(Protocol):
    """The Ray that runs go to."""

    async def endpoint(self) -> Endpoint:
        """Where it answers. Raises Unavailable while it does not."""
        ...

    async def lost(self, session: str | None) -> Gone | None:
        """Set when every run of that session is known to be gone; `None` asks about a run whose session is not known."""
        ...

    def submission(self, run: RunRequest) -> Submission:
        """How the run's driver is started."""
        ...

    def hardware(self) -> Hardware | None:
        """All that it will ever have; None: not known yet, or it may grow."""
        ...

    def forget(self, run_id: str) -> None:
        """Removes what `submission` has written for the driver, which is gone."""
        ...

    async def close(self) -> None:
        """Ends what was started for this process."""
        ...


class RayJobs:
    """The backend."""

    def __init__(self, cluster: RayCluster, http: Http) -> None:
        self._cluster = cluster
        self._http = http

    async def launch(self, run: RunRequest) -> str:
        endpoint = await self._cluster.endpoint()
        _check_size(run, self._cluster.hardware())
        if await self._details(endpoint, run.run_id) is None:
            await self._submit(endpoint, run)
        return endpoint.session

    async def observe(self, run: RunRef) -> Observation:
        if (gone := await self._cluster.lost(run.handle)) is not None:
            return gone
        endpoint = await self._cluster.endpoint()
        details = await self._details(endpoint, run.run_id)
        if details is not None:
            return _observation(details)
        if run.handle is not None and run.handle != endpoint.session:
            return Gone(reason="RAY_HEAD_GONE", message="the Ray head node was replaced, and its runs died with the old one")
        return Gone(reason="RUN_LOST", message="Ray does not know the run")

    async def stop(self, run: RunRef) -> None:
        if await self._cluster.lost(run.handle) is not None:
            return
        endpoint = await self._cluster.endpoint()
        details = await self._details(endpoint, run.run_id)
        if details is not None and details["status"] not in ENDED:
            await self._call(endpoint, "POST", f"/api/jobs/{run.run_id}/stop")

    async def runs(self, instance: str) -> Sequence[RunRef]:
        endpoint = await self._cluster.endpoint()
        answer = await self._call(endpoint, "GET", "/api/jobs/")
        jobs: list[JobDetails] = [] if answer is None else answer.json()
        return [
            RunRef(run_id=run_id, handle=endpoint.session)
            for job in jobs
            if job["status"] not in ENDED and (job.get("metadata") or {}).get(INSTANCE) == instance and (run_id := job.get("submission_id"))
        ]

    async def logs(self, run: RunRef, start: int = 0) -> AsyncGenerator[bytes, None]:
        if await self._cluster.lost(run.handle) is not None:
            return
        endpoint = await self._cluster.endpoint()
        details = await self._details(endpoint, run.run_id)
        node = None if details is None else details.get("driver_node_id")
        if node is None:
            return
        async with aclosing(self._log_file(endpoint, run.run_id, node)) as pieces:
            async for piece in pieces:  # Ray's API knows no offset: what was read before is passed over as it comes
                if len(piece) > start:
                    yield piece[start:]
                start = max(0, start - len(piece))

    async def _log_file(self, endpoint: Endpoint, run_id: str, node: str) -> AsyncGenerator[bytes, None]:
        """The driver's log from its beginning. The Jobs API answers it as one JSON string; this way it comes in pieces."""
        query = {"node_id": node, "filename": f"job-driver-{run_id}.log", "lines": "-1", "timeout": LOG_TIMEOUT_S}
        async with self._http.stream(f"{endpoint.url}/api/v0/logs/file", token=endpoint.token, query=query) as answer:
            if not isinstance(answer, Answer):
                async for piece in answer:
                    yield piece
            elif NO_SUCH_FILE not in answer.text:  # nothing is written yet
                _checked(endpoint.url, answer)

    async def forget(self, run: RunRef) -> None:
        """Ray keeps a job's record and log as long as its head lives, at no cost. What its driver was handed in files goes."""
        if isinstance(await self.observe(run), Gone):
            await asyncio.to_thread(self._cluster.forget, run.run_id)

    def hardware(self) -> Hardware | None:
        return self._cluster.hardware()

    async def ping(self) -> None:
        await self._cluster.endpoint()

    async def close(self) -> None:
        await self._http.close()
        await self._cluster.close()

    async def _details(self, endpoint: Endpoint, run_id: str) -> JobDetails | None:
        answer = await self._call(endpoint, "GET", f"/api/jobs/{run_id}", missing_ok=True)
        return None if answer is None else answer.json()

    async def _submit(self, endpoint: Endpoint, run: RunRequest) -> None:
        submission = self._cluster.submission(run)
        body = {
            "submission_id": run.run_id,
            "entrypoint": submission.entrypoint,
            "runtime_env": submission.runtime_env,
            "metadata": {"lorafleet_run": run.run_id, INSTANCE: run.instance},
        }
        await self._call(endpoint, "POST", "/api/jobs/", body=body)

    async def _call(self, endpoint: Endpoint, method: str, path: str, *, missing_ok: bool = False, body: Any = None) -> Answer | None:
        answer = await self._http.call(method, endpoint.url + path, token=endpoint.token, body=body)
        if answer.status == 404 and missing_ok:
            return None
        return _checked(endpoint.url, answer)


class JoinedRay:
    """A cluster that is there already, at its Jobs API address. It is never stopped from here."""

    def __init__(self, url: str, token: str | None, http: Http) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._http = http

    async def endpoint(self) -> Endpoint:
        answer = _checked(self._url, await self._http.call("GET", f"{self._url}/api/version", token=self._token))
        return Endpoint(url=self._url, token=self._token, session=answer.json().get("session_name", ""))

    async def lost(self, session: str | None) -> Gone | None:
        return None

    def submission(self, run: RunRequest) -> Submission:
        # Whoever may look at this cluster's dashboard may submit code to it anyway, and read the environment of its processes.
        secrets = {RUN_TOKEN_ENV: run.token, **run.store_env}
        return Submission(entrypoint=entrypoint(run, python="python"), runtime_env={"env_vars": secrets})

    def hardware(self) -> Hardware | None:
        """It may grow: the size that it has now is no limit."""
        return None

    def forget(self, run_id: str) -> None:
        """Nothing was written."""

    async def close(self) -> None:
        """Nothing here was started for this process."""


def entrypoint(run: RunRequest, *extra: str, python: str = sys.executable) -> str:
    """The driver's command line. It holds no secret: dashboards and `ps` show it."""
    return shlex.join([python, "-m", "trainer.run", "--manifest", run.manifest_uri, *regions(run), *extra])


def ambient_token(environment: Mapping[str, str]) -> str | None:
    """The token of a joined cluster, from where Ray's own clients take it."""
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.read_text().strip() if path.is_file() else None


def _check_size(run: RunRequest, hardware: Hardware | None) -> None:
    """A run that was admitted before the size was known: Ray would wait for its workers and never say why."""
    if hardware is not None and (message := beyond(run.cluster, hardware)):
        raise LorafleetError(message, reason=EXCEEDS_CAPACITY)


def _observation(details: JobDetails) -> Observation:
    match details["status"]:
        case "SUCCEEDED":
            return Gone(reason="DRIVER_EXITED", message="the driver exited with code 0 and did not report the job's end")
        case "STOPPED":
            return Gone(reason="RUN_STOPPED", message="the run was stopped")
        case "FAILED" if (code := details.get("driver_exit_code")) is not None:
            said = details.get("message")
            return Gone(reason=reason(said), message=f"the driver exited with code {code}; its last lines: {last_lines(said)}")
        case "FAILED":
            return Gone(reason="RUN_LOST", message=f"Ray lost the driver: {last_lines(details.get('message'))}")
        case _:
            return Alive()


def _checked(url: str, answer: Answer) -> Answer:
    if answer.status in {401, 403}:
        message = f"Ray at {url} refuses the token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH for lorafleet serve"
        raise Unavailable(message, reason="RAY_TOKEN_REFUSED")
    if answer.status >= 500:
        raise Unavailable(f"Ray at {url} answers HTTP {answer.status}", reason="RAY_UNREACHABLE")
    if not answer.good:
        raise LorafleetError(f"Ray at {url} refuses: HTTP {answer.status}: {answer.text[-MESSAGE_TAIL:]}", reason="RAY_REFUSED")
    return answer
