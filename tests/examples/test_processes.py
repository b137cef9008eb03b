"""What the demo starts, the demo ends: whatever it is, however it goes."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from examples.processes import MARK, InUse, ServerDied, Servers, fresh_folder

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


# A demo: it starts servers over a folder, and says their pids.
DEMO = """
import sys, time
from pathlib import Path
from examples.processes import Servers
folder = Path(sys.argv[1])
with Servers(folder) as servers:
    server = servers.start("server", [sys.executable, "-c", sys.argv[2], str(folder / "ready")], {})
    print(servers.wait_for_file(folder / "ready", server, timeout_s=30), flush=True)
    time.sleep(600)
"""


@contextmanager
def demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", DEMO, str(folder), SERVER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def test_what_a_demo_that_was_killed_hard_has_left_is_ended_by_the_next_over_its_folder(tmp_path: Path) -> None:
    with demo(tmp_path / "ours") as (killed, left), demo(tmp_path / "others") as (other, elsewhere):
        for process in (killed, other):
            process.kill()
            process.wait()
        assert fresh_folder(tmp_path / "ours") == tmp_path / "ours"
        assert len(left) == 2
        assert not any(psutil.pid_exists(pid) for pid in left)
        assert not any((tmp_path / "ours").iterdir())
        assert all(psutil.pid_exists(pid) for pid in elsewhere), "another folder's is left alone"
        fresh_folder(tmp_path / "others")


def test_a_demo_that_is_at_work_is_left_alone_and_its_folder_too(tmp_path: Path) -> None:
    with demo(tmp_path / "ours") as (running, pids):
        with pytest.raises(InUse, match=str(running.pid)):
            fresh_folder(tmp_path / "ours")
        assert (tmp_path / "ours" / "ready").exists()
        assert all(psutil.pid_exists(pid) for pid in pids)
