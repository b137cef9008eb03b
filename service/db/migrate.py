"""Brings the schema up to date, or back. Part of every start; imports alembic only when there is something to do."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, inspect, text

from service.db.engines import blocking_engine, parse_url

_SCRIPTS = Path(__file__).parent / "migrations"
REVISIONS = sorted(path.name[:4] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))  # files are named by their revision
HEAD = REVISIONS[-1]
_LOCK = 0x10FA_F1EE_7DB0  # PostgreSQL's advisory lock: of several that start at once one migrates, the others wait for it


def revision(url: str) -> str | None:
    """The schema that the database has; None for an empty one. Raises what the driver raises. Blocks."""
    parsed = parse_url(url)
    if parsed.drivername == "sqlite" and not Path(parsed.database or "").exists():
        return None  # looking would create it
    with _connected(url) as connection:
        return _revision(connection)


def upgrade(url: str, to: str = HEAD) -> str | None:
    """Creates the schema, or migrates it; what it is then. A schema that is newer than ours is left alone. Blocks."""
    if revision(url) == to:
        return to
    with _locked(url) as connection:
        before = _revision(connection)
        if before is None or before < to:
            _run("upgrade", connection, to)
        return _revision(connection)


def misfits(url: str) -> list[str]:
    """Why this version cannot work on a schema that is newer than its own: what it uses and finds no more, and what it would
    have to fill. Blocks."""
    from service.db.models import TableBase

    found: list[str] = []
    with _connected(url) as connection:
        schema = inspect(connection)
        there = set(schema.get_table_names())
        for table in TableBase.metadata.sorted_tables:
            columns = {each["name"]: each for each in schema.get_columns(table.name)} if table.name in there else {}
            found += [f"{table.name}.{name} is gone" for name in table.columns.keys() - columns.keys()]
            new = [columns[name] for name in columns.keys() - table.columns.keys()]
            found += [f"{table.name}.{each['name']} must be filled" for each in new if not each["nullable"] and each.get("default") is None]
    return sorted(found)


def downgrade(url: str, to: str) -> None:
    """Takes the schema back to an earlier revision, "base" for an empty database. Blocks."""
    with _locked(url) as connection:
        _run("downgrade", connection, to)


def service_row() -> dict[str, object]:
    """The one row of the table `service`, new for every database."""
    return {"id": 1, "instance": uuid4().hex, "run_token_key": secrets.token_bytes(32), "last_seq": 0, "floor_seq": 0}


def _run(verb: str, connection: Connection, to: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    getattr(command, verb)(config, to)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    return row[0] if row else None


@contextmanager
def _locked(url: str) -> Generator[Connection]:
    """A transaction in which nobody else migrates. SQLite has one writer anyway."""
    with _connected(url) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection


@contextmanager
def _connected(url: str) -> Generator[Connection]:
    engine = blocking_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
