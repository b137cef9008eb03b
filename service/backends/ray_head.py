"""Keeps the record of the local Ray head in the state directory, and looks after its processes. Knows nothing of HTTP."""

import json
import os
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from lorafleet import state_files

SESSION_ENV = "LORAFLEET_RAY_SESSION"  # marks every process of a head, in whatever session or group it is


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """The newest local head: there is one at a time, and its record outlives the process that started it."""

    session: str
    dashboard_port: int
    agent_port: int
    pid: int = 0  # of `ray start --block`: the head lives as long as it does; 0: about to be started
    pid_create_time: float = 0  # tells a process from a later one of the same pid
    stopped: bool = False  # ended in good order, by us
    interrupted: str = ""  # the session before it, if that ended in good order

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def agent_url(self) -> str:
        return f"http://127.0.0.1:{self.agent_port}"


def load(path: Path) -> HeadRecord | None:
    """The record, if there is one. Raises FailedPrecondition for a broken one: what it should name may still be running."""
    return state_files.read(path, lambda text: HeadRecord(**json.loads(text)))


def save(path: Path, record: HeadRecord) -> None:
    """Writes the record whole or not at all."""
    state_files.write(path, json.dumps(asdict(record)))


def of_process(record: HeadRecord, pid: int) -> HeadRecord:
    """The record of a head that has just been started."""
    return replace(record, pid=pid, pid_create_time=psutil.Process(pid).create_time())


def ended(record: HeadRecord) -> HeadRecord:
    """The record of a head that was ended in good order."""
    return replace(record, stopped=True)


def alive(record: HeadRecord) -> bool:
    """Whether that very head is still there."""
    if not record.pid:
        return False
    try:
        process = psutil.Process(record.pid)
        return process.create_time() == record.pid_create_time and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes(record: HeadRecord) -> list[psutil.Process]:
    """Every living process of the head: its Unix session, whatever carries its mark, and their descendants.

    Three ways, because each has a hole: drivers leave the Unix session, Ray's workers overwrite their environment, and
    orphans have lost their parents.
    """
    own = os.getpid()
    roots = [process for process in psutil.process_iter() if process.pid != own and _belongs(process, record)]
    found = {process.pid: process for process in roots}
    for root in roots:
        try:
            found.update({child.pid: child for child in root.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return [process for process in found.values() if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _belongs(process: psutil.Process, record: HeadRecord) -> bool:
    try:
        if record.pid and os.getsid(process.pid) == record.pid and process.create_time() >= record.pid_create_time:
            return True
        return process.environ().get(SESSION_ENV) == record.session
    except (psutil.Error, OSError):
        return False


def kill_all(record: HeadRecord, gently_s: float) -> None:
    """Ends the head and all that belongs to it, and returns once nothing is left. Blocks."""
    if alive(record):
        family = processes(record)
        psutil.Process(record.pid).terminate()  # Ray's own orderly end
        psutil.wait_procs(family, timeout=gently_s)
    while left := processes(record):
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=2)


def free_ports(count: int) -> list[int]:
    """Free ports on loopback."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
