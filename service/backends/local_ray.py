"""A local Ray on this machine: started in the background, adopted by the next `lorafleet serve` after a kill -9.

It runs in a Unix session of its own, so that neither Ctrl-C nor our death takes it along, and is ended with all its
processes by `close`. `head.json` in the state directory is how it is found again.
"""

import asyncio
import hashlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lorafleet import state_files
from lorafleet.errors import LorafleetError, Unavailable
from service.backends import ray_head
from service.backends.base import RunRequest
from service.backends.http import Http
from service.backends.ray_head import HeadRecord
from service.backends.ray_jobs import Endpoint, Submission, entrypoint
from service.control.attempts import Gone
from service.control.capacity import Hardware

START_TIMEOUT_S = 180
ASK_AGAIN_S = 0.25
STOP_GENTLY_S = 8
STOP_SIGNAL_WAIT_S = 10  # from a driver's SIGINT to its SIGKILL: the grace period has passed before
RETRY_START_S = 10

log = logging.getLogger(__name__)


class LocalRay:
    """The local head. `ready` is called when it begins to answer, so no polling is needed."""

    def __init__(self, state_dir: Path, http: Http, ready: Callable[[], None] = lambda: None) -> None:
        self._http = http
        self._folder = state_dir / "ray"
        self._runs = state_dir / "runs"
        self._record_path = self._folder / "head.json"
        self._ready = ready
        self._head: HeadRecord | None = None  # set while it answers
        self._fresh = False  # the head in `head.json` was started by us and has not answered yet
        self._hardware: Hardware | None = None
        self._failure = ""
        self._starting: asyncio.Task[None] | None = None
        self._child: subprocess.Popen[bytes] | None = None  # kept: its zombie is reaped with it
        self._closed = False

    async def endpoint(self) -> Endpoint:
        if self._head is not None and not ray_head.alive(self._head):
            log.warning("the local Ray has died")
            self._head = None
        if self._head is None:
            self.start()
            raise Unavailable(self._failure or "the local Ray is starting", reason="RAY_STARTING")
        return Endpoint(url=self._head.url, token=self._token(), session=self._head.session)

    async def lost(self, session: str | None) -> Gone | None:
        if session is None:  # never answered a launch, so nothing can have been submitted to it
            return Gone(reason="RUN_LOST", message="the run was not launched") if self._fresh else None
        record = ray_head.load(self._record_path)
        if record is None or session != record.session:  # a record is only replaced once nothing of the old head is left
            if record is not None and session == record.interrupted:
                return Gone(reason="RAY_STOPPED", message="lorafleet serve was stopped, and its Ray with it")
            return Gone(reason="RAY_HEAD_GONE", message="the Ray head died, and its runs with it")
        return None

    def submission(self, run: RunRequest) -> Submission:
        token_file = self._runs / run.run_id / "token"
        token_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        state_files.write(token_file, run.token)
        options = ["--token-file", str(token_file)]
        if run.store_env:
            credentials_file = token_file.with_name("store-credentials")
            state_files.write(credentials_file, json.dumps(dict(run.store_env)))
            options += ["--store-credentials-file", str(credentials_file)]
        # An empty runtime_env, and the service's own credentials by inheritance: nothing to show, and Ray's idle workers fit.
        return Submission(entrypoint=entrypoint(run, *options), runtime_env={})

    def hardware(self) -> Hardware | None:
        return self._hardware

    def forget(self, run_id: str) -> None:
        """Its token, its tenant's store credentials, and Ray Train's bookkeeping."""
        shutil.rmtree(self._runs / run_id, ignore_errors=True)

    def start(self) -> None:
        """Adopts the head that is there, or starts one, in the background. Nothing happens when that is under way."""
        if self._closed or (self._starting is not None and not self._starting.done()):
            return
        self._starting = asyncio.create_task(self._bring_up())

    async def close(self) -> None:
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        record = ray_head.load(self._record_path)
        if record is not None and not record.stopped:
            await asyncio.to_thread(ray_head.kill_all, record, STOP_GENTLY_S)
            ray_head.save(self._record_path, ray_head.ended(record))
            await asyncio.to_thread(shutil.rmtree, _own_folder(self._folder), ignore_errors=True)

    async def _bring_up(self) -> None:
        try:
            record = await self._adopted() or await self._started()
            self._hardware = await self._size(record)  # before runs can be launched
            self._head, self._fresh, self._failure = record, False, ""
            log.info("the local Ray answers; dashboard at %s", record.url)
            self._ready()
        except LorafleetError as error:
            self._failure = error.message
            log.error("%s", error.message)
            await asyncio.sleep(RETRY_START_S)

    async def _adopted(self) -> HeadRecord | None:
        record = ray_head.load(self._record_path)
        if record is None or record.stopped:
            return None
        if ray_head.alive(record) and await self._answers(record):
            log.info("found the local Ray of an earlier lorafleet serve")
            return record
        await asyncio.to_thread(ray_head.kill_all, record, STOP_GENTLY_S)
        return None

    async def _started(self) -> HeadRecord:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        state_files.write(self._folder / "token", secrets.token_hex(32))
        before = ray_head.load(self._record_path)
        ports = ray_head.free_ports(3)
        record = HeadRecord(
            session=secrets.token_hex(8),
            dashboard_port=ports[0],
            agent_port=ports[1],
            interrupted=before.session if before is not None and before.stopped else "",
        )
        ray_head.save(self._record_path, record)  # before there is a process, so that none is ever unknown
        record = ray_head.of_process(record, self._spawn(record.session, ports))
        ray_head.save(self._record_path, record)
        self._fresh = True
        if await self._answers(record):
            return record
        await asyncio.to_thread(ray_head.kill_all, record, 0)
        raise Unavailable(f"Ray does not start; see {self._log_path}: {self._last_line()}", reason="RAY_START_FAILED")

    def _spawn(self, session: str, ports: list[int]) -> int:
        command = _command(ports, _temp_dir(self._folder))
        environment = _environment(session, self._folder / "token")
        with state_files.made_private(self._log_path).open("ab") as output:
            self._child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        return self._child.pid

    async def _answers(self, record: HeadRecord) -> bool:
        """Waits until jobs can be submitted. Asks the agent too: its first call takes seconds, so let it be this one."""
        urls = (f"{record.url}/api/version", f"{record.agent_url}/api/job_agent/jobs/none/logs")
        return all(await asyncio.gather(*(self._comes_up(url, record) for url in urls)))

    async def _comes_up(self, url: str, record: HeadRecord) -> bool:
        for _ in range(int(START_TIMEOUT_S / ASK_AGAIN_S)):
            if not ray_head.alive(record):
                return False
            try:
                if (await self._http.call("GET", url, token=self._token())).status in {200, 404}:
                    return True
            except Unavailable:
                pass  # not yet
            await asyncio.sleep(ASK_AGAIN_S)
        return False

    async def _size(self, record: HeadRecord) -> Hardware | None:
        """What its node has. None when it does not say: then nothing is limited by it."""
        try:
            answer = await self._http.call("GET", f"{record.url}/api/v0/nodes", token=self._token())
            [node] = answer.json()["data"]["result"]["result"]
            has: dict[str, float] = node["resources_total"]
            return Hardware(gpus=has.get("GPU", 0.0), cpus=has["CPU"], memory_bytes=has["memory"])
        except (Unavailable, ValueError, LookupError, TypeError):
            log.warning("the local Ray does not say how large it is")
            return None

    def _token(self) -> str:
        return (self._folder / "token").read_text()

    @property
    def _log_path(self) -> Path:
        return self._folder / "head.log"

    def _last_line(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


def _command(ports: list[int], temp_dir: Path) -> list[str]:
    dashboard, agent, client_server = ports
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats", "--no-monitor"),
        *("--port=0", "--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={client_server}"),
        *("--node-ip-address=127.0.0.1", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", f"--temp-dir={temp_dir}"),
    ]


def _environment(session: str, token_file: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return inherited | {
        ray_head.SESSION_ENV: session,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # Ray takes 127.0.0.1 for the address by which other machines reach this one, and listens on all of its addresses, with
        # metrics that ask for no token. As on macOS and Windows, where it has no other nodes, it then stays on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SIGNAL_WAIT_S),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


def _temp_dir(folder: Path) -> Path:
    """A short path for Ray's own files (Unix sockets allow 107 bytes), emptied, in a folder that only we may enter."""
    mine = _own_folder(folder)
    mine.mkdir(mode=0o700, exist_ok=True)
    status = mine.lstat()
    if mine.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Unavailable(f"{mine} belongs to someone else; remove it, or choose another --state-dir", reason="RAY_START_FAILED")
    shutil.rmtree(mine / "ray", ignore_errors=True)  # Ray itself opens its folder to everyone, hence the one around it
    return mine / "ray"


def _own_folder(folder: Path) -> Path:
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return Path(f"/tmp/lorafleet-{os.getuid()}-{digest}")
