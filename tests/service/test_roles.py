"""Replicas whose calls and loops run apart, as processes on one PostgreSQL; and what a drain does to calls under way."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import psycopg
import pytest

from lorafleet import spec
from lorafleet.client import Client
from lorafleet.states import label
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.db import migrate
from tests.postgres import Postgres
from tests.service.serving import Served, served, until
from tests.service.stand_in_ray import StandInRay, stand_in_ray

pytestmark = [pytest.mark.postgresql, pytest.mark.timeout(300)]
NAME = "roles"


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    postgres.drop(NAME)
    url = postgres.create(NAME)
    migrate.upgrade(url)
    yield url
    postgres.drop(NAME)


@pytest.fixture
def ray() -> Iterator[StandInRay]:
    with stand_in_ray() as ray:
        yield ray


def shared(folder: Path, url: str, ray: str, *options: str) -> tuple[str, ...]:
    """The options that all replicas have."""
    return ("--database-url", url, "--ray-address", ray, "--artifacts", f"file://{folder}/artifacts", "--warm-idle-s", "0", *options)


def small_spec(folder: Path, max_steps: int = 2) -> spec.Spec:
    for name, content in {"base/model_index.json": "{}", "pictures/a.png": "png"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    places = {"base_model": {"uri": f"file://{folder}/base"}, "dataset": {"uri": f"file://{folder}/pictures"}}
    return spec.parse({**places, "training": {"max_steps": max_steps}})


def test_what_the_one_half_accepts_the_other_runs(tmp_path: Path, url: str, ray: StandInRay):
    with (
        served(tmp_path / "api", *shared(tmp_path, url, ray.address, "--role", "api")) as api,
        Client(api.address, tenant="acme") as client,
    ):
        client.create(small_spec(tmp_path), job_id="fox")
        reconcile = shared(tmp_path, url, ray.address, "--role", "reconcile", "--report-address", api.address)
        with served(tmp_path / "reconcile", *reconcile) as loops:
            assert label(client.wait("fox", timeout_s=120)) == "SUCCEEDED"
            [run] = ray.jobs
            until(lambda: f"launched {run} " in loops.log.read_text(), 30, "the launch in the log of the loops")
        until(lambda: "step 2" in "".join(piece.text for piece in client.logs("fox")), 30, "the log, by the half that did not copy it")
    assert f"launched {run} " not in api.log.read_text(), "the half that answers calls starts nothing"


@pytest.mark.proof
def test_runs_outlive_the_half_that_takes_their_reports(tmp_path: Path, url: str, ray: StandInRay):
    """For longer than a run may be silent nobody can report; the half that looks for silence knows it."""
    asked = small_spec(tmp_path, max_steps=60)
    silence_s = 8
    reconcile = ("--role", "reconcile", "--heartbeat-timeout-s", str(silence_s))
    with ExitStack() as stack:
        api = stack.enter_context(served(tmp_path / "api", *shared(tmp_path, url, ray.address, "--role", "api")))
        stack.enter_context(
            served(tmp_path / "reconcile", *shared(tmp_path, url, ray.address, *reconcile, "--report-address", api.address))
        )
        client = stack.enter_context(Client(api.address, tenant="acme"))
        client.create(asked, job_id="fox")
        until(lambda: client.get("fox").progress.step >= 5, 60, "training")
        api.kill()
        time.sleep(2 * silence_s)  # the outage itself; silence is looked for every five seconds
        stack.enter_context(served(tmp_path / "api", *shared(tmp_path, url, ray.address, "--role", "api")))
        job = client.wait("fox", timeout_s=60)
        assert (label(job), len(job.attempts)) == ("SUCCEEDED", 1)


def test_a_job_waits_while_there_is_nobody_to_run_it(tmp_path: Path, url: str, ray: StandInRay):
    with (
        served(tmp_path / "api", *shared(tmp_path, url, ray.address, "--role", "api")) as api,
        Client(api.address, tenant="acme") as client,
    ):
        client.create(small_spec(tmp_path), job_id="fox")
        client.create(small_spec(tmp_path), job_id="owl")
        client.cancel("owl")
        assert label(client.wait("owl", timeout_s=30)) == "CANCELLED"
        assert label(client.get("fox")) == "QUEUED"
        assert not ray.jobs


def test_a_drain_finishes_the_call_under_way_and_the_client_goes_on_at_another_replica(tmp_path: Path, url: str):
    """The call waits for a lock of the database that the test holds: it is under way for as long as the test wants."""
    asked = small_spec(tmp_path)
    options = shared(tmp_path, url, "http://127.0.0.1:1")
    with served(tmp_path / "one", *options) as one, served(tmp_path / "two", *options) as two, ThreadPoolExecutor() as pool:
        both = f"ipv4:{one.address},{two.address}"
        with Client(one.address, tenant="acme") as here, Client(both, tenant="acme") as anywhere, _locked_jobs(url) as lock:
            anywhere.create(asked, validate_only=True)
            creating = pool.submit(here.create, asked, job_id="fox")
            until(lambda: _num_waiting(url) == 1, 30, "the call in the database")
            one.process.terminate()
            _until_refused(one)
            riding_out = pool.submit(anywhere.create, asked, job_id="owl")
            until(lambda: _num_waiting(url) == 2, 30, "the call that goes on at the other replica")
            assert not creating.done()
            lock.rollback()
            assert creating.result(30).name == "tenants/acme/jobs/fox"
            assert riding_out.result(30).name == "tenants/acme/jobs/owl"
        assert one.process.wait(60) == 0
        with Client(two.address, tenant="acme") as there:
            assert {job.name for job in there.list()} == {"tenants/acme/jobs/fox", "tenants/acme/jobs/owl"}


def _until_refused(replica: Served) -> None:
    """A replica that drains takes no new call, and says so in a way that a client tries again."""

    def code() -> grpc.StatusCode:
        with grpc.insecure_channel(replica.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                rpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"), timeout=10)
            except grpc.RpcError as error:
                if isinstance(error, grpc.Call):
                    return error.code()
                raise
            return grpc.StatusCode.OK

    until(lambda: code() is not grpc.StatusCode.OK, 4, "the drain")
    assert code() is grpc.StatusCode.UNAVAILABLE
    assert replica.process.poll() is None, "the call under way holds it"


def _locked_jobs(url: str) -> psycopg.Connection:
    """A transaction in which nobody else writes to the table of jobs; readers go on."""
    connection = psycopg.connect(url.replace("+psycopg", ""))
    connection.execute("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
    return connection


def _num_waiting(url: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]
