"""The real thing but for the trainer: `lorafleet serve`, its local Ray, and a stand-in driver, killed at every joint.

One Ray for the whole module; the tests run in order and leave the fleet serving.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import pytest

from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.backends import ray_head
from service.backends.ray_head import HeadRecord
from tests.service.serving import REPOSITORY, Served, served, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
STAND_IN = Path(__file__).parent / "stand_in"
PATIENCE_S = 180  # two cores, shared


class Fleet:
    """A server on one state directory, which may be killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = ("--max-running-runs", "2", *options)
        self.state_dir = folder / "state"
        self.served: Served | None = None
        self._stack = ExitStack()
        (folder / "base").mkdir()
        (folder / "base" / "model_index.json").write_text("{}")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "a.png").write_bytes(b"png")

    def start(self) -> None:
        path = os.pathsep.join([str(STAND_IN), str(REPOSITORY)])
        self.served = self._stack.enter_context(served(self.state_dir, *self.options, env={"PYTHONPATH": path}))
        self.jobs = rpc.TrainingServiceStub(self._stack.enter_context(grpc.insecure_channel(self.served.address)))

    def stop(self) -> None:
        self._stack.close()

    def head(self) -> HeadRecord:
        record = ray_head.load(self.state_dir / "ray" / "head.json")
        assert record is not None
        return record

    def submit(self, job_id: str) -> str:
        request = pb.CreateTrainingJobRequest(parent="tenants/acme", training_job_id=job_id)
        spec = request.training_job.spec
        spec.base_model.uri, spec.dataset.uri = f"file://{self.folder}/base", f"file://{self.folder}/pictures"
        spec.labels["until"] = str(self.folder / f"{job_id}.go")
        return self.jobs.CreateTrainingJob(request).name

    def let_end(self, job_id: str) -> None:
        (self.folder / f"{job_id}.go").touch()

    def job(self, name: str) -> pb.TrainingJob:
        return self.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=name), wait_for_ready=True)

    def until(self, name: str, state: str, attempts: int = 1) -> pb.TrainingJob:
        def reached() -> bool:
            job = self.job(name)
            return pb.JobState.Name(job.state) == f"JOB_STATE_{state}" and len(job.attempts) == attempts

        until(reached, PATIENCE_S, f"{state} in attempt {attempts} of {name}")
        return self.job(name)

    def drivers(self, job: pb.TrainingJob) -> list[psutil.Process]:
        """The newest attempt's driver processes, without the shell around."""
        run = job.attempts[-1].run
        lines = [(process, _command_line(process)) for process in ray_head.processes(self.head())]
        return [process for process, line in lines if line[:1] == [sys.executable] and any(run in part for part in line)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it has ended since it was found, or waits to be reaped
        return []


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    fleet.start()
    yield fleet
    fleet.stop()


def test_a_job_goes_from_submit_to_artifact(fleet: Fleet):
    name = fleet.submit("first")
    fleet.let_end("first")
    job = fleet.until(name, "SUCCEEDED")
    assert job.artifact.uri == f"{job.output_uri}/adapter"
    assert job.HasField("first_step_time")
    request = pb.StreamTrainingJobLogsRequest(name=name, follow=True)
    assert "trained" in "".join(piece.text for piece in fleet.jobs.StreamTrainingJobLogs(request))


def test_nothing_of_the_local_ray_listens_beyond_loopback(fleet: Fleet):
    """Its metrics ask for no token."""
    listening = {
        f"{connection.laddr.ip} {' '.join(_command_line(process))[:100]}"
        for process in ray_head.processes(fleet.head())
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 5, "GCS, raylet, dashboard, agents"
    assert [each for each in listening if not each.startswith(("127.0.0.1 ", "::1 ", "::ffff:127.0.0.1 "))] == []


def test_killing_the_control_plane_harms_no_run(fleet: Fleet):
    name = fleet.submit("survivor")
    before = fleet.until(name, "RUNNING")
    head = fleet.head()
    assert fleet.served is not None
    fleet.served.kill()
    assert ray_head.alive(head)
    fleet.start()
    assert fleet.job(name).state == pb.JOB_STATE_RUNNING
    until(lambda: fleet.job(name).progress.step > before.progress.step + 5, PATIENCE_S, "progress after the restart")
    assert fleet.head() == head, "the same Ray was adopted"
    fleet.let_end("survivor")
    assert fleet.until(name, "SUCCEEDED").attempts[0].run == before.attempts[0].run


def test_a_killed_driver_is_followed_by_attempt_two(fleet: Fleet):
    name = fleet.submit("bereft")
    job = fleet.until(name, "RUNNING")
    for driver in fleet.drivers(job):
        driver.kill()
    job = fleet.until(name, "RUNNING", attempts=2)
    assert job.attempts[0].reason == "DRIVER_EXITED"
    fleet.let_end("bereft")
    fleet.until(name, "SUCCEEDED", attempts=2)


def test_cancel_stops_the_driver_in_good_order(fleet: Fleet):
    name = fleet.submit("unwanted")
    fleet.until(name, "RUNNING")
    fleet.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name))
    job = fleet.until(name, "CANCELLED")
    assert job.end_time.ToSeconds() - job.first_step_time.ToSeconds() < 30
    until(lambda: not fleet.drivers(job), PATIENCE_S, "the driver's end")


@pytest.mark.proof
def test_a_dead_ray_head_is_replaced_and_its_run_tried_again(fleet: Fleet):
    name = fleet.submit("orphan")
    fleet.until(name, "RUNNING")
    old = fleet.head()
    os.kill(old.pid, signal.SIGKILL)
    job = fleet.until(name, "RUNNING", attempts=2)
    assert job.attempts[0].reason == "RAY_HEAD_GONE"
    assert fleet.head().session != old.session
    assert ray_head.processes(old) == []
    fleet.let_end("orphan")
    fleet.until(name, "SUCCEEDED", attempts=2)


@pytest.mark.proof
def test_a_good_order_stop_leaves_no_process_and_costs_no_attempt(fleet: Fleet):
    name = fleet.submit("paused")
    fleet.until(name, "RUNNING")
    head = fleet.head()
    assert fleet.served is not None
    assert fleet.served.stop() == 0
    assert ray_head.processes(head) == []
    fleet.start()
    job = fleet.until(name, "RUNNING", attempts=2)
    assert job.attempts[0].reason == "RAY_STOPPED"
    fleet.let_end("paused")
    fleet.until(name, "SUCCEEDED", attempts=2)
