"""The local head's record and its processes: told from others, found wherever they went, and ended to the last."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from service.backends import ray_head
from service.backends.http import Http
from service.backends.local_ray import LocalRay, _temp_dir
from service.backends.ray_head import HeadRecord
from service.control.capacity import Hardware
from tests.service.serving import until

# A "head" with a child in its session, one that has left it, and one that is an orphan.
FAMILY = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.Popen({sleep!r}, start_new_session=True)"])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def record():
    environment = {**os.environ, ray_head.SESSION_ENV: f"test-{os.getpid()}"}
    head = subprocess.Popen([sys.executable, "-c", FAMILY], env=environment, start_new_session=True, stdout=subprocess.PIPE)
    assert head.stdout is not None
    assert head.stdout.readline() == b"up\n"
    record = ray_head.of_process(HeadRecord(session=f"test-{os.getpid()}", dashboard_port=1, agent_port=2), head.pid)
    yield record
    ray_head.kill_all(record, gently_s=0)
    head.wait(10)
    head.stdout.close()


def test_every_process_of_a_head_is_found_and_ended(record: HeadRecord):
    assert len(ray_head.processes(record)) == 4
    ray_head.kill_all(record, gently_s=1)
    assert ray_head.processes(record) == []
    assert not ray_head.alive(record)


def test_what_a_killed_head_left_is_ended_too(record: HeadRecord):
    psutil.Process(record.pid).kill()
    until(lambda: not ray_head.alive(record), 10, "the head's death")
    assert len(ray_head.processes(record)) == 3
    ray_head.kill_all(record, gently_s=1)
    assert ray_head.processes(record) == []


def test_a_later_process_of_the_same_pid_is_not_the_head():
    record = HeadRecord(session="none", dashboard_port=1, agent_port=2, pid=os.getpid(), pid_create_time=1.0)
    assert not ray_head.alive(record)


def test_a_record_of_a_head_that_never_started_matches_nothing():
    record = HeadRecord(session="none", dashboard_port=1, agent_port=2)
    assert ray_head.processes(record) == []
    ray_head.kill_all(record, gently_s=0)


def test_a_record_is_found_again(tmp_path: Path):
    assert ray_head.load(tmp_path / "head.json") is None
    record = HeadRecord(session="s", dashboard_port=1, agent_port=2, pid=3, pid_create_time=4.5, interrupted="r")
    ray_head.save(tmp_path / "head.json", record)
    assert ray_head.load(tmp_path / "head.json") == record


async def test_runs_of_an_earlier_head_are_gone_and_why(tmp_path: Path):
    (tmp_path / "ray").mkdir()
    ray_head.save(tmp_path / "ray" / "head.json", HeadRecord(session="now", dashboard_port=1, agent_port=2, interrupted="before"))
    ray = LocalRay(tmp_path, Http(loopback=True))
    stopped, crashed = await ray.lost("before"), await ray.lost("long-ago")
    assert stopped is not None
    assert crashed is not None
    assert (stopped.reason, crashed.reason) == ("RAY_STOPPED", "RAY_HEAD_GONE")
    assert await ray.lost("now") is None


async def test_what_ray_keeps_in_tmp_goes_on_an_orderly_stop(tmp_path: Path):
    (tmp_path / "ray").mkdir()
    kept = _temp_dir(tmp_path / "ray")
    (kept / "session_1").mkdir(parents=True)
    ray_head.save(tmp_path / "ray" / "head.json", HeadRecord(session="ended-already", dashboard_port=1, agent_port=2))
    await LocalRay(tmp_path, Http(loopback=True)).close()
    assert not kept.parent.exists()


NODES = {"data": {"result": {"result": [{"resources_total": {"CPU": 2.0, "memory": 17325099008.0, "node:127.0.0.1": 1.0}}]}}}


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (httpx.Response(200, json=NODES), Hardware(gpus=0.0, cpus=2.0, memory_bytes=17325099008.0)),
        (httpx.Response(500, text="Traceback"), None),
        (httpx.Response(200, json={"data": None}), None),
    ],
)
async def test_the_local_ray_says_how_large_it_is_or_limits_nothing(tmp_path: Path, answer: httpx.Response, size: Hardware | None):
    ray = LocalRay(tmp_path, Http(transport=httpx.MockTransport(lambda _: answer)))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "token").write_text("secret")
    assert await ray._size(HeadRecord(session="s", dashboard_port=1, agent_port=2)) == size


def test_rays_folder_is_short_and_only_ours(tmp_path: Path):
    folder = _temp_dir(tmp_path / ("long" * 50))
    assert len(str(folder)) < 50
    assert folder.parent.stat().st_mode & 0o077 == 0
    folder.parent.rmdir()
