"""Upgrades with jobs at work, as docs/operations.md orders them: the schema first, under the servers, which are replaced then."""

import hashlib
import hmac
import sqlite3
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from lorafleet.errors import Unauthenticated
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.backends.base import RunRequest
from service.backends.fake import FakeBackend
from service.core.clock import FakeClock
from service.core.resource_names import parse_job
from service.core.wakeups import Bell
from service.db import events, migrate
from service.db.database import Database
from service.db.engines import engine_of, sqlite_url
from service.jobs.messages import job_event
from tests.service.serving import REPOSITORY, served
from tests.service.world import World, progress, succeeded

GOLDEN = Path(__file__).parent / "golden" / "schema-0003.sql"  # a whole database of schema 0003, written by the code of that time
BEFORE = "fcee4e7"  # the newest commit whose schema is 0003
NOWHERE = ("--ray-address", "http://127.0.0.1:1")


@pytest.fixture
def old_database(tmp_path: Path) -> Path:
    """Of schema 0003, with jobs that have ended, one that trains, one that is queued and one that was cancelled."""
    path = tmp_path / "lorafleet.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(GOLDEN.read_text().replace("{folder}", str(tmp_path)))
    return path


def running_run(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        query = "SELECT run_id FROM run_jobs JOIN jobs ON jobs.uid = job_uid WHERE job_id = 'running'"
        return connection.execute(query).fetchone()[0]


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    clock = FakeClock()
    clock.advance(60)  # later than anything in the golden database
    yield Database(engine_of(sqlite_url(path)), clock, Bell(), job_event)


async def test_jobs_of_the_schema_before_go_on_after_the_upgrade(old_database: Path, tmp_path: Path):
    run = running_run(old_database)
    migrate.upgrade(sqlite_url(old_database))
    with opened(old_database) as db:
        backend, clock = FakeBackend(), db.clock
        assert isinstance(clock, FakeClock)
        await backend.launch(RunRequest(run_id=run, instance="", manifest_uri="", token=""))  # it has been at work all the time
        world = await World.create(db, backend, clock, tmp_path)
        world.sequences[run] = 2
        states = {
            name: await world.state(parse_job(f"tenants/acme/jobs/{name}")) for name in ("done", "bad", "running", "queued", "cancelled")
        }
        expected = {"done": "SUCCEEDED", "bad": "FAILED", "running": "RUNNING", "queued": "QUEUED", "cancelled": "CANCELLED"}
        assert states == expected
        await world.settle()
        await world.report(run, progress(8))
        running = parse_job("tenants/acme/jobs/running")
        assert (await world.job(running)).progress.step == 8
        await world.commit_artifact(running)
        await world.report(run, succeeded())
        backend.end(run)
        clock.advance(5)
        await world.settle()
        assert await world.state(running) == "SUCCEEDED"
        assert await world.state(parse_job("tenants/acme/jobs/queued")) == "STARTING"
        assert len(backend.launches) == 2, "the run of before was adopted, and the queued job launched"
        await db.close()


async def test_a_run_whose_token_is_of_an_older_kind_stops_itself_and_its_job_goes_on_in_another_attempt(
    old_database: Path, tmp_path: Path
):
    """Tokens of the version before did not expire. Nobody takes such a one any more, at the cost of this once."""
    run = running_run(old_database)
    migrate.upgrade(sqlite_url(old_database))
    with opened(old_database) as db:
        backend = FakeBackend()
        await backend.launch(RunRequest(run_id=run, instance="", manifest_uri="", token=""))
        assert isinstance(db.clock, FakeClock)
        world = await World.create(db, backend, db.clock, tmp_path)
        async with db.snapshot() as tx:
            key = (await events.service(tx)).run_token_key
        old_token = f"{run}.{hmac.new(key, f'run-token:{run}'.encode(), hashlib.sha256).hexdigest()}"
        with pytest.raises(Unauthenticated):
            await world.reports.apply(old_token, rpb.ReportRequest(run=run, source="driver"))
        backend.end(run)  # what its reporter does when it hears that
        db.clock.advance(60)
        await world.settle()
        db.clock.advance(3600)
        await world.settle()
        job = await world.job(parse_job("tenants/acme/jobs/running"))
        assert (job.attempts[-1].number, job.attempts[-1].run) == (2, backend.launches[-1])
        await db.close()


def test_the_way_back_keeps_the_jobs(old_database: Path):
    def jobs() -> list[tuple[str, str, int]]:
        with sqlite3.connect(old_database) as connection:
            return connection.execute("SELECT job_id, state, attempt FROM jobs ORDER BY job_id").fetchall()

    before = jobs()
    migrate.upgrade(sqlite_url(old_database))
    migrate.downgrade(sqlite_url(old_database), "0003")
    assert migrate.revision(sqlite_url(old_database)) == "0003"
    assert jobs() == before


def test_a_server_of_the_version_before_serves_on_over_the_newer_schema_until_it_is_replaced(tmp_path: Path):
    """The whole order of an upgrade, with both versions as processes on one database."""
    old_code = _code_of(BEFORE, tmp_path / "old")
    _put_inputs(tmp_path)
    state_dir = tmp_path / "state"
    with served(state_dir, *NOWHERE, env={"PYTHONPATH": str(old_code)}) as old:
        with grpc.insecure_channel(old.address) as channel:
            _create(channel, tmp_path, "before")
            migrate.upgrade(sqlite_url(state_dir / "lorafleet.db"))
            _create(channel, tmp_path, "between")
            assert _names(channel) == {"before", "between"}
        assert old.stop() == 0
        assert "Traceback" not in old.log.read_text()
    with served(state_dir, *NOWHERE) as new, grpc.insecure_channel(new.address) as channel:
        _create(channel, tmp_path, "after")
        assert _names(channel) == {"before", "between", "after"}


def _code_of(commit: str, folder: Path) -> Path:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this clone is too shallow for the version before ({commit})")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    _install(folder)
    return folder


def _install(folder: Path) -> None:
    """Its commands lie where its own pyproject.toml says, not where this version's are."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    commands = project["entry-points"]["lorafleet.commands"]
    installed = folder / f"lorafleet-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lorafleet\nVersion: {project['version']}\n")
    (installed / "entry_points.txt").write_text("\n".join(["[lorafleet.commands]", *(f"{name} = {at}" for name, at in commands.items())]))


def _put_inputs(folder: Path) -> None:
    (folder / "base").mkdir()
    (folder / "base" / "model_index.json").write_text("{}")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"png")


def _create(channel: grpc.Channel, folder: Path, job_id: str) -> None:
    request = pb.CreateTrainingJobRequest(parent="tenants/acme", training_job_id=job_id)
    spec = request.training_job.spec
    spec.base_model.uri, spec.dataset.uri = f"file://{folder}/base", f"file://{folder}/pictures"
    rpc.TrainingServiceStub(channel).CreateTrainingJob(request, timeout=30)


def _names(channel: grpc.Channel) -> set[str]:
    answer = rpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"), timeout=30)
    return {job.name.rpartition("/")[2] for job in answer.training_jobs}
