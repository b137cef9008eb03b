"""Several `lorafleet serve` on one PostgreSQL, as processes: what they share, what they refuse, how one leaves."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from sqlalchemy import text

from lorafleet.errors import FailedPrecondition, InvalidInput
from lorafleet.v1 import report_service_pb2 as rpb
from lorafleet.v1 import report_service_pb2_grpc, training_service_pb2_grpc
from lorafleet.v1 import training_service_pb2 as pb
from service.db import migrate
from service.db.engines import blocking_engine, parse_url, shown, sqlite_url
from service.server import database as replica
from service.settings.serve_settings import ReplicaRole, Settings, check_replica
from tests.postgres import Postgres
from tests.service.serving import REPOSITORY, command, served, until

URL = "postgresql://ada:very-secret@db.example:5432/fleet?sslpassword=also-secret"


def shared(folder: Path, url: str, *options: str) -> tuple[str, ...]:
    """The options of replicas; their Ray is not there."""
    return ("--database-url", url, "--ray-address", "http://127.0.0.1:1", "--artifacts", f"file://{folder}/artifacts", *options)


def execute(url: str, *statements: str) -> None:
    engine = blocking_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def db_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lorafleet.cli", "db", *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY
    )


@pytest.fixture
def new_postgres_url(postgres: Postgres) -> str:
    """An empty database, without any schema."""
    postgres.drop("new")
    return postgres.create("new")


@pytest.mark.postgresql
def test_replicas_that_start_at_once_on_an_empty_database_share_its_jobs(tmp_path: Path, new_postgres_url: str):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model_index.json").write_text("{}")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"png")
    with ExitStack() as stack:
        options = shared(tmp_path, new_postgres_url)
        replicas = [stack.enter_context(served(tmp_path / f"replica-{number}", *options)) for number in range(2)]
        one, two = (training_service_pb2_grpc.TrainingServiceStub(stack.enter_context(grpc.insecure_channel(r.address))) for r in replicas)
        request = pb.CreateTrainingJobRequest(parent="tenants/acme", training_job_id="fox")
        spec = request.training_job.spec
        spec.base_model.uri, spec.dataset.uri = f"file://{tmp_path}/base", f"file://{tmp_path}/pictures"
        one.CreateTrainingJob(request)
        assert two.GetTrainingJob(pb.GetTrainingJobRequest(name="tenants/acme/jobs/fox")).uid
        assert replicas[0].stop() == 0
        assert two.CancelTrainingJob(pb.CancelTrainingJobRequest(name="tenants/acme/jobs/fox")).name, "the other goes on"
        password = parse_url(new_postgres_url).password
        assert password
        assert all(password not in replica.log.read_text() for replica in replicas)


@pytest.mark.postgresql
def test_a_reconciler_answers_no_calls_of_users_or_runs(tmp_path: Path, new_postgres_url: str):
    options = shared(tmp_path, new_postgres_url, "--role", "reconcile", "--report-address", "ipv4:127.0.0.1:1,127.0.0.1:2")
    with served(tmp_path / "state", *options) as replica, grpc.insecure_channel(replica.address) as channel:
        with pytest.raises(grpc.RpcError) as error:
            training_service_pb2_grpc.TrainingServiceStub(channel).ListTrainingJobs(pb.ListTrainingJobsRequest(parent="tenants/acme"))
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as error:
            report_service_pb2_grpc.ReportServiceStub(channel).Report(rpb.ReportRequest(run="run-1"))
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.postgresql
def test_a_database_that_is_away_is_named_without_its_password(tmp_path: Path):
    options = shared(tmp_path, "postgresql://ada:very-secret@127.0.0.1:1/fleet")
    ran = subprocess.run(command(tmp_path / "state", *options), capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)
    assert ran.returncode == 1
    assert "the database postgresql://ada:***@127.0.0.1:1/fleet does not answer" in ran.stderr
    assert "very-secret" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_password_is_never_shown():
    assert "secret" not in shown(URL)
    settings = Settings(host="h", port=1, state_dir=Path(), artifacts_uri="", cache_uri="", database_url=URL)
    assert "secret" not in repr(settings)
    with pytest.raises(InvalidInput) as error:
        parse_url("mysql://ada:very-secret@host/fleet")
    assert "secret" not in error.value.message


@pytest.mark.parametrize(
    ("url", "role", "ray", "artifacts", "reports", "reason"),
    [
        (URL, ReplicaRole.ALL, "", "s3://a", "", "LOCAL_RAY_NOT_SHARED"),
        (URL, ReplicaRole.ALL, "http://ray", "", "", "STORE_NOT_SHARED"),
        (URL, ReplicaRole.RECONCILE, "http://ray", "s3://a", "", "NO_REPORT_ADDRESS"),
        ("", ReplicaRole.API, "http://ray", "s3://a", "", "DATABASE_NOT_SHARED"),
    ],
)
def test_what_replicas_do_not_share_is_refused(url: str, role: ReplicaRole, ray: str, artifacts: str, reports: str, reason: str):
    with pytest.raises(FailedPrecondition) as error:
        check_replica(url, role, ray, artifacts, reports)
    assert error.value.reason == reason


def test_sqlite_is_no_database_of_replicas():
    with pytest.raises(InvalidInput):
        check_replica("sqlite:////tmp/fleet.db", ReplicaRole.ALL, "http://ray", "s3://a", "")


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def test_the_schema_is_checked_upgraded_and_taken_back(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    url = sqlite_url(tmp_path / "new.db") if kind == "sqlite" else request.getfixturevalue("new_postgres_url")

    def told(*arguments: str, code: int) -> str:
        ran = db_command(*arguments, "--database-url", url)
        assert ran.returncode == code, ran
        return ran.stdout + ran.stderr

    assert "run `lorafleet db upgrade`" in told("check", code=1)
    assert f"the schema is {migrate.HEAD}" in told("upgrade", code=0)
    assert f"the schema is {migrate.HEAD}" in told("check", code=0)
    assert "known are base, 0001" in told("downgrade", "--to", "9999", code=2)
    for revision in [*migrate.REVISIONS[-2::-1], "base"]:
        migrate.downgrade(url, revision)
    assert "run `lorafleet db upgrade`" in told("check", code=1)
    told("upgrade", code=0)
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    assert "use a newer lorafleet" in told("check", code=1)
    assert migrate.upgrade(url) == "9999", "what a newer version made is left alone"
    assert "all that this version uses is there" in told("upgrade", code=0)
    execute(url, "ALTER TABLE jobs ADD COLUMN noted VARCHAR", "ALTER TABLE jobs ADD COLUMN filled VARCHAR NOT NULL DEFAULT ''")
    assert migrate.misfits(url) == []
    execute(url, "ALTER TABLE jobs DROP COLUMN message")
    assert migrate.misfits(url) == ["jobs.message is gone"]
    assert "use a newer lorafleet" in told("upgrade", code=1)


async def test_a_server_starts_on_a_newer_schema_that_has_all_that_it_uses(tmp_path: Path):
    """After an upgrade that failed, or a rollback: a replica that is drained meanwhile must come back."""
    settings = Settings(host="127.0.0.1", port=0, state_dir=tmp_path, artifacts_uri="", cache_uri="")
    url = sqlite_url(settings.database_path)
    migrate.upgrade(url)
    execute(url, "UPDATE alembic_version SET version_num = '9999'", "CREATE TABLE jobs_of_tomorrow (id INTEGER)")
    execute(url, "ALTER TABLE jobs ADD COLUMN weight INTEGER NOT NULL DEFAULT 1")
    async with replica.database(settings):
        pass
    execute(url, "ALTER TABLE jobs RENAME COLUMN message TO words")
    with pytest.raises(FailedPrecondition, match=r"jobs\.message is gone") as error:
        async with replica.database(settings):
            pass
    assert error.value.reason == "SCHEMA_TOO_NEW"


@pytest.mark.postgresql
def test_of_many_that_migrate_at_once_one_does_it(new_postgres_url: str):
    program = "import sys; from service.db import migrate; print(migrate.upgrade(sys.argv[1]))"
    started = [
        subprocess.Popen([sys.executable, "-c", program, new_postgres_url], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == [migrate.HEAD] * 3
    engine = blocking_engine(new_postgres_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM service")).scalar_one() == 1
    engine.dispose()


@pytest.mark.postgresql
def test_a_replica_that_drains_answers_what_is_under_way_and_takes_nothing_new(tmp_path: Path, new_postgres_url: str):
    with served(tmp_path / "state", *shared(tmp_path, new_postgres_url)) as replica, grpc.insecure_channel(replica.address) as channel:
        watch = training_service_pb2_grpc.TrainingServiceStub(channel).WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/acme"))
        assert next(watch).resume_token
        replica.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as error:
            for _ in watch:
                pass
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE, "the watch goes on with another replica"
        until(lambda: replica.process.poll() == 0, 60, "the end of the replica")


def test_runs_on_kubernetes_need_no_ray_to_share():
    check_replica(URL, ReplicaRole.ALL, True, "s3://a", "")
