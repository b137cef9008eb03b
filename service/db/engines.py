"""Makes engines for SQLite and PostgreSQL: how connections are opened, begun and given up. Knows no table."""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util.concurrency import in_greenlet

from lorafleet.errors import InvalidInput

BUSY_TIMEOUT_S = 20  # SQLite: for the writer of another process
POOL_SIZE = 16  # connections of one replica, whose number watchers and calls do not raise
POOL_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 5
# PostgreSQL ends what takes longer. A replica that stands still in a transaction loses it, and with it its row locks, before
# the transactions that wait for these give up. A connection cut off from the network is noticed by unanswered probes.
IDLE_IN_TRANSACTION_S = 5
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30
_PROBES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
_SERVER_PROBES = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 2, "tcp_keepalives_count": 3, "tcp_user_timeout": 10_000}
_PRIVATE = {"hide_parameters": True}  # an error names its statement in the log, never the values in it: users', or secret
_BEGIN = "lorafleet_begin"  # execution option: how SQLite begins the transaction

WRITING: dict[str, dict[str, Any]] = {
    "sqlite": {_BEGIN: "BEGIN IMMEDIATE"},
    "postgresql": {"isolation_level": "READ COMMITTED"},
}
READING: dict[str, dict[str, Any]] = {
    "sqlite": {_BEGIN: "BEGIN DEFERRED"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite:///{path}"


def parse_url(url: str, field: str = "--database-url") -> URL:
    """Raises InvalidInput for anything but the URL of a known database; the message never shows the URL, because of its password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput(f"{field} is not a URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
    drivers = {"sqlite": "sqlite", "sqlite+aiosqlite": "sqlite", "postgres": "postgresql", "postgresql": "postgresql"}
    drivers["postgresql+psycopg"] = "postgresql"
    kind = drivers.get(parsed.drivername)
    if kind is None or not parsed.database:
        named = f"names {parsed.drivername!r}" if kind is None else "names no database"
        raise InvalidInput(f"{field} {named}; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:///FILE")
    return parsed.set(drivername=kind)


def shown(url: str) -> str:
    """The URL as it may be logged: without its password, and without options, which may hold one too."""
    parsed = parse_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def engine_of(url: str) -> AsyncEngine:
    """An engine with its pool. Connects when first used. Raises InvalidInput."""
    parsed = parse_url(url)
    if parsed.drivername == "sqlite":
        return sqlite_engine(Path(parsed.database or ""))
    return create_async_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args=_postgres_arguments(),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,
        **_PRIVATE,
        **WRITING["postgresql"],
    )


def sqlite_engine(path: Path) -> AsyncEngine:
    """An engine on an SQLite file: WAL, so that readers never wait for writers."""
    arguments = {"timeout": BUSY_TIMEOUT_S}
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args=arguments, **_PRIVATE)
    engine.sync_engine.dialect.do_terminate = _close
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def blocking_engine(url: str) -> Engine:
    """An engine for migrations: it blocks, waits as long as it takes, and leaves SQLite's references unchecked (tables are copied)."""
    parsed = parse_url(url)
    if parsed.drivername == "postgresql":
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "lorafleet db", **_PROBES}
        return create_engine(parsed.set(drivername="postgresql+psycopg"), connect_args=arguments, **_PRIVATE)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S}, **_PRIVATE)
    event.listen(engine, "connect", _without_own_transactions)
    event.listen(engine, "begin", _begin)
    return engine


def listening_arguments(url: str) -> dict[str, Any]:
    """psycopg's arguments for a connection that only listens."""
    parsed = parse_url(url)
    where = {"host": parsed.host, "port": parsed.port, "user": parsed.username, "password": parsed.password, "dbname": parsed.database}
    given = {name: value for name, value in {**where, **parsed.query}.items() if value is not None}
    return {**given, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "lorafleet listening", **_PROBES}


def _postgres_arguments() -> dict[str, Any]:
    timeouts = {
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
        **_SERVER_PROBES,
    }
    options = " ".join(f"-c {name}={value}" for name, value in timeouts.items())
    return {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "lorafleet", "options": options, **_PROBES}


def _close(dbapi_connection: Any) -> None:
    """Closes the connection of a call that was cancelled in the middle of a statement.

    SQLAlchemy leaves that to a task of its own, and stops the connection once more should the event loop end before that task:
    aiosqlite 0.22 then waits without end for a thread that has ended, and the process with it.
    """
    if in_greenlet():
        dbapi_connection.close()
    else:  # it was not closed, and cannot be awaited
        dbapi_connection.terminate()


def _configure(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    _without_own_transactions(connection, record)
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _without_own_transactions(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own: `_begin` does


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))
