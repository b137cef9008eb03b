"""A control plane without server and without Ray: a fake backend, a clock that stands still, and a database: SQLite in a
folder, and once more PostgreSQL."""

import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from service.backends.fake import FakeBackend
from service.core.clock import FakeClock
from service.core.wakeups import Bell
from service.db import migrate
from service.db.database import Database
from service.db.engines import sqlite_url
from service.jobs.messages import job_event
from tests.postgres import Postgres, postgres_server
from tests.service.engines import engine_at
from tests.service.streams import end_all
from tests.service.world import World

_number = count()  # of this process's PostgreSQL databases
TEMPLATE = "template_lorafleet"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: starts real servers (Ray, gRPC over sockets)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test process, with the schema in a template."""
    with postgres_server() as server:
        migrate.upgrade(server.create(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "empty.db"
    migrate.upgrade(sqlite_url(path))
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database_path(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "lorafleet.db"))


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a new PostgreSQL database that holds the schema and no job."""
    server: Postgres = request.getfixturevalue("postgres")
    name = f"test_{next(_number)}"
    yield server.create(name, TEMPLATE)
    server.drop(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a new database that holds the schema and no job: every test that uses it runs on both kinds."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return sqlite_url(request.getfixturevalue("database_path"))


@pytest.fixture
async def db(database_url: str, clock: FakeClock) -> AsyncIterator[Database]:
    database = Database(engine_at(database_url), clock, Bell(), job_event)
    yield database
    await end_all()
    await database.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def world(db: Database, backend: FakeBackend, clock: FakeClock, tmp_path: Path) -> World:
    return await World.create(db, backend, clock, tmp_path)
