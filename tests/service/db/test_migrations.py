"""An older database is brought up to date with all that it holds."""

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from service.db import migrate
from service.db.engines import sqlite_url

JOB = {"uid": "u1", "tenant": "acme", "job_id": "fox", "spec": '{"labels": {}}', "labels": '{"team": "red"}', "output_uri": "file:///out"}
STATE = {"state": "QUEUED", "reason": "", "message": "", "attempt": 0, "failures": 0, "cancel_requested": 0, "version": 1}
TIMES = {"create_time": 1_700_000_000_000_000, "update_time": 1_700_000_000_000_000}
EVENT = {"seq": 1, "tenant": "acme", "job_uid": "u1", "version": 1, "time": 1_700_000_000_000_000, "payload": b""}


def to(path: Path, revision: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
    engine.dispose()


def insert(path: Path, table: str, row: dict[str, object]) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    """A database of the first schema with a job and its event."""
    path = tmp_path / "old.db"
    to(path, "0001")
    insert(path, "jobs", {**JOB, **STATE, **TIMES})
    insert(path, "job_events", EVENT)
    return path


def test_jobs_of_an_older_database_are_kept(first_schema: Path):
    migrate.upgrade(sqlite_url(first_schema))
    with sqlite3.connect(first_schema) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM jobs").fetchone())
        assert {**JOB, **STATE, **TIMES}.items() <= row.items()
        assert (row["batch_uid"], row["batch_id"], row["batch_index"]) == (None, None, None)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_the_events_of_a_migrated_job_still_refer_to_it(first_schema: Path):
    migrate.upgrade(sqlite_url(first_schema))
    with sqlite3.connect(first_schema) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("DELETE FROM jobs")


def test_a_downgrade_keeps_the_jobs(first_schema: Path):
    migrate.upgrade(sqlite_url(first_schema))
    to(first_schema, "0001", down=True)
    with sqlite3.connect(first_schema) as connection:
        assert connection.execute("SELECT job_id FROM jobs").fetchall() == [("fox",)]
