"""One `lorafleet serve` with its local Ray for all tests that train: starting them takes longer than the tests."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from examples.demo import BASE_MODEL, PICTURES
from examples.restyle import restyle
from lorafleet.client import Client
from lorafleet.v1 import training_service_pb2 as pb
from service.backends import ray_head
from service.backends.ray_head import HeadRecord
from tests.service.serving import Served, served, until

PATIENCE_S = 400  # two cores, shared with whatever else runs


class Fleet:
    """A real fleet that may be killed and started again."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        self.served: Served = self._stack.enter_context(served(self.folder / "state", env=self.environment))
        self.client = self._stack.enter_context(Client(self.served.address, tenant="acme"))

    def close(self) -> None:
        self._stack.close()

    @property
    def head(self) -> HeadRecord:
        record = ray_head.load(self.folder / "state" / "ray" / "head.json")
        assert record is not None
        return record

    @property
    def ray_token(self) -> str:
        return (self.folder / "state" / "ray" / "token").read_text()

    def ray(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of the fleet's own Ray, whose answer must be good."""
        headers = {"Authorization": f"Bearer {self.ray_token}"}
        return httpx.request(method, f"{self.head.url}{path}", headers=headers, timeout=60, **options).raise_for_status()

    def wait_for_ray(self) -> None:
        def answers() -> bool:
            try:
                self.ray("GET", "/api/version")
            except (httpx.HTTPError, AssertionError, OSError):
                return False
            return True

        until(answers, PATIENCE_S, "the local Ray")

    def reach(self, name: str, *states: str, step: int = 0, attempts: int = 1) -> pb.TrainingJob:
        """The job, once it is in one of the states, at least so far. Fails at once when it ends otherwise."""

        def reached() -> bool:
            job = self.client.get(name)
            state = pb.JobState.Name(job.state).removeprefix("JOB_STATE_")
            if state in states and job.progress.step >= step and len(job.attempts) >= attempts:
                return True
            assert not job.HasField("end_time"), f"{state} {job.reason}: {job.message}\n{self.log(name)[-5000:]}"
            return False

        until(reached, PATIENCE_S, f"{name} to be {' or '.join(states)} at step {step}")
        return self.client.get(name)

    def log(self, name: str) -> str:
        return "".join(piece.text for piece in self.client.logs(name))

    def driver(self, job: pb.TrainingJob) -> psutil.Process:
        """The process of the newest attempt's driver, without the shell around it; of a run on warm workers, their first run's."""
        run = job.attempts[-1].run
        drivers = [
            process for process in ray_head.processes(self.head) if "trainer.run" in (line := process.cmdline()) and "sh" not in line[0]
        ]
        own = [process for process in drivers if run in " ".join(process.cmdline())]
        (driver,) = own or drivers
        return driver


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, minio: dict[str, str]) -> Iterator[Fleet]:
    # Passive waiting: a spinning OpenMP thread takes the core that the other worker of the test needs.
    environment = {**minio, "OMP_WAIT_POLICY": "PASSIVE", "LORAFLEET_NODE_CACHE": str(tmp_path_factory.mktemp("node-cache"))}
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), environment)
    yield fleet
    fleet.close()
    assert ray_head.processes(fleet.head) == [], "the fleet leaves no process behind"


@pytest.fixture(scope="session")
def style(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a folder of restyled pictures."""
    folder = tmp_path_factory.mktemp("style")
    restyle("sepia", PICTURES, folder)
    return f"file://{folder}"


@pytest.fixture(scope="session")
def base() -> str:
    return f"file://{os.fspath(BASE_MODEL)}"
