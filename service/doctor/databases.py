"""Checks the database: reachable, its schema, its clock."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from service.db import migrate
from service.doctor.clocks import skew
from service.doctor.findings import Finding, failed, ok, warning

CONNECT_TIMEOUT_S = 5
_UPGRADE = "run `lorafleet db upgrade`, then start the servers"


async def check_database(url: str) -> Sequence[Finding]:
    """Changes nothing. The URL is shown without its password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return [failed("database", "--database-url is not a URL", "give it as postgresql://USER:PASSWORD@HOST/DATABASE")]
    return await asyncio.to_thread(_look, parsed)


def _look(url: URL) -> Sequence[Finding]:
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # looking would create it
        return [warning("database", f"{url.database} is not there yet", "nothing, if this is a new server: its first start creates it")]
    shown = url.set(query={}).render_as_string(hide_password=True)
    is_postgres = url.get_backend_name() == "postgresql"
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S} if is_postgres else {"timeout": CONNECT_TIMEOUT_S}
    engine = create_engine(url.set(drivername="postgresql+psycopg" if is_postgres else "sqlite"), connect_args=arguments)
    try:
        with engine.connect() as connection:
            findings = [ok("database", f"{shown} answers"), _schema(_revision(connection))]
            if is_postgres:
                began = time.time()
                theirs = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
                findings.append(skew("database clock", theirs - (began + time.time()) / 2))
            return findings
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return [failed("database", f"{shown}: {why}", "check that it is up, reachable from here, and that user and password are right")]
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _schema(revision: str | None) -> Finding:
    if revision is None:
        return warning("schema", "the database is empty", _UPGRADE)
    if revision < migrate.HEAD:
        return failed("schema", f"it is at {revision}, and this version needs {migrate.HEAD}", _UPGRADE)
    if revision > migrate.HEAD:
        return warning("schema", f"it is at {revision}, newer than this version's {migrate.HEAD}", "replace this version by the newer one")
    return ok("schema", f"it is at {revision}")
