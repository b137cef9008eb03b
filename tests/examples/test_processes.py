"""What the demo starts, the demo ends: whatever it is, however it goes."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.processes import MARK, ServerDied, Servers

# A server that starts a detached one, as Ray does, writes both pids, and waits.
SERVER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def start(servers: Servers, folder: Path, script: str = SERVER) -> tuple[subprocess.Popen[bytes], list[int]]:
    server = servers.start("server", [sys.executable, "-c", script, str(folder / "ready")], {})
    return server, [int(pid) for pid in servers.wait_for_file(folder / "ready", server, timeout_s=30).split()]


def test_leaving_ends_servers_and_the_detached_processes_they_started(tmp_path: Path) -> None:
    with Servers(tmp_path) as servers:
        _, pids = start(servers, tmp_path)
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_a_killed_server_left_behind_is_ended_too(tmp_path: Path) -> None:
    with Servers(tmp_path) as servers:
        server, pids = start(servers, tmp_path)
        server.kill()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_failure_ends_everything_and_stays_the_failure(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with Servers(tmp_path) as servers:
            pids.extend(start(servers, tmp_path)[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_process_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={MARK: "another run"})
    try:
        with Servers(tmp_path):
            pass
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_server_that_dies_before_it_is_ready_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    with Servers(tmp_path) as servers, pytest.raises(ServerDied, match=str(tmp_path)):
        start(servers, tmp_path, script="print('no')")
    assert (tmp_path / "server.log").read_text() == "no\n"
