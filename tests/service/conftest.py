"""A control plane without server and without Ray: SQLite in a folder, a fake backend, a clock that stands still."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.backends.fake import FakeBackend
from service.bell import Bell
from service.clock import FakeClock
from service.db import migrate
from service.db.database import Database, sqlite_engine
from tests.service.world import World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: starts real servers (Ray, gRPC over sockets)")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "empty.db"
    migrate.upgrade(path)
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database_path(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "lorafleet.db"))


@pytest.fixture
async def db(database_path: Path, clock: FakeClock) -> AsyncIterator[Database]:
    database = Database(sqlite_engine(database_path), clock, Bell())
    yield database
    await database.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def world(db: Database, backend: FakeBackend, clock: FakeClock, tmp_path: Path) -> World:
    return await World.create(db, backend, clock, tmp_path)
