"""Brings the schema up to date. Part of every start; imports alembic only when there is something to do."""

import secrets
import sqlite3
from pathlib import Path
from uuid import uuid4

_SCRIPTS = Path(__file__).parent / "migrations"
HEAD = max(path.name[:4] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))  # files are named by their revision


def upgrade(path: Path) -> None:
    """Creates the database, or migrates it to `HEAD`. Blocks."""
    if _revision(path) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:  # no such table: an empty file
        return None
    finally:
        connection.close()
    return row[0] if row else None


def service_row() -> dict[str, object]:
    """The one row of the table `service`, new for every database."""
    return {"id": 1, "instance": uuid4().hex, "run_token_key": secrets.token_bytes(32), "last_seq": 0, "floor_seq": 0}
