"""Workers that stand by on a Ray that the server joined: `lorafleet serve` as a process, over a stand-in for Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet import spec
from lorafleet.client import Client
from lorafleet.v1 import training_service_pb2 as pb
from tests.service.serving import Served, served, until
from tests.service.stand_in_ray import StandInRay, stand_in_ray

PATIENCE_S = 60
OPTIONS = ("--standby-workers", "1", "--capacity-cpus", "2", "--capacity-gpus", "0")


@pytest.fixture
def ray() -> Iterator[StandInRay]:
    with stand_in_ray() as ray:
        yield ray


@pytest.fixture
def server(ray: StandInRay, tmp_path: Path) -> Iterator[Served]:
    """One whose workers stand by: it has been idle for ten seconds by then."""
    for name in ("base/model_index.json", "pictures/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")  # nobody reads it
    with served(tmp_path / "state", "--ray-address", ray.address, *OPTIONS) as server:
        until(lambda: "stands by; its workers wait" in server.log.read_text(), PATIENCE_S, "workers that stand by")
        yield server


def trained(server: Served, folder: Path, **cluster: int) -> pb.TrainingJob:
    inputs = {"base_model": {"uri": f"file://{folder}/base"}, "dataset": {"uri": f"file://{folder}/pictures"}}
    with Client(server.address, tenant="acme") as client:
        name = client.create(spec.parse({**inputs, "training": {"max_steps": 2}, "cluster": cluster})).name
        until(lambda: client.get(name).HasField("end_time"), PATIENCE_S, "the job's end")
        return client.get(name)


def test_the_first_job_on_a_joined_ray_goes_to_workers_that_stand_by(server: Served, ray: StandInRay, tmp_path: Path):
    [host] = ray.jobs
    job = trained(server, tmp_path)
    assert job.state == pb.JOB_STATE_SUCCEEDED
    assert list(ray.jobs) == [host], "nothing was submitted for it"
    assert len(job.attempts) == 1


@pytest.mark.proof  # the same wait again
def test_workers_that_stand_by_on_a_joined_ray_give_way_to_a_job_that_needs_their_cpus(server: Served, ray: StandInRay, tmp_path: Path):
    [host] = ray.jobs
    job = trained(server, tmp_path, cpus_per_worker=2)
    assert job.state == pb.JOB_STATE_SUCCEEDED
    assert list(ray.jobs) == [host, job.attempts[0].run]
    assert ray.jobs[host]["status"] != "RUNNING"
