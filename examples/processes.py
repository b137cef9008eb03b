"""Starts servers for a while, and leaves none of them behind: not after an error, not after Ctrl-C. Knows no lorafleet."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

MARK = "LORAFLEET_DEMO_RUN"  # in the environment of everything that is started, however far down and however detached
FOLDER = "LORAFLEET_DEMO_FOLDER"  # there too: over which folder it works,
OWNER = "LORAFLEET_DEMO_OWNER"  # and who started it and ends it, unless it was killed hard: its pid and when it began
GRACE_S = 20.0
WAYS_OUT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, `kill`, a closed terminal: all leave the same way


class ServerDied(Exception):
    """A server ended although it should not have; the message says where its log is."""


class InUse(Exception):
    """Another process, which lives, has servers over the same folder."""


def fresh_folder(folder: Path) -> Path:
    """The folder, empty, with nothing at work over it: what a process that was killed has left there is ended. Raises InUse."""
    left = [process for process in psutil.process_iter() if _environment(process).get(FOLDER) == str(folder.resolve())]
    if owners := {owner for process in left if _is_alive(owner := _environment(process).get(OWNER, ""))}:
        pid = min(owners).partition(" ")[0]
        raise InUse(f"process {pid} is at work over {folder}; let it end, or end it")
    end_all([*left, *(child for process in left for child in _children(process) if child not in left)])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Servers:
    """The servers started in a `with` block; on the way out they are ended, and whatever they started."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, _interrupt) for number in WAYS_OUT}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in WAYS_OUT:  # a second Ctrl-C must not stop the cleaning
            signal.signal(number, signal.SIG_IGN)
        try:
            for server in reversed(self._started):
                server.terminate()
                _wait(server, GRACE_S)
            end_all(self._marked())
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a server; its output goes to NAME.log. In a session of its own: Ctrl-C reaches this process alone."""
        with (self._log_dir / f"{name}.log").open("wb") as log:
            server = subprocess.Popen(
                command,
                env={**os.environ, **environment, MARK: self._mark, FOLDER: str(self._log_dir.resolve()), OWNER: _owner(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(server)
        return server

    def wait_for_file(self, path: Path, server: subprocess.Popen[bytes], timeout_s: float) -> str:
        """What a server writes to `path` once it is ready. Raises ServerDied."""
        deadline = time.monotonic() + timeout_s
        while not (path.is_file() and path.read_text().strip()):
            if server.poll() is not None:
                raise ServerDied(f"a server ended with exit code {server.returncode} before it was ready; see the logs in {self._log_dir}")
            if time.monotonic() > deadline:
                raise ServerDied(f"a server was not ready after {timeout_s:.0f} s; see the logs in {self._log_dir}")
            time.sleep(0.05)
        return path.read_text().strip()

    def _marked(self) -> list[psutil.Process]:
        """Everything that carries the mark, and its children: a process that renames itself may lose its environment."""
        marked = {process for process in psutil.process_iter() if _environment(process).get(MARK) == self._mark}
        return [*marked, *(child for process in marked for child in _children(process) if child not in marked)]


def _owner(pid: int) -> str:
    return f"{pid} {psutil.Process(pid).create_time()}"


def _is_alive(owner: str) -> bool:
    try:
        return bool(owner) and owner == _owner(int(owner.partition(" ")[0]))
    except (psutil.Error, ValueError):
        return False


def end_all(processes: Sequence[psutil.Process]) -> None:
    """SIGTERM, and after a while SIGKILL."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=GRACE_S)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _wait(server: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        server.wait(timeout_s)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return
