"""A PostgreSQL of our own for tests: loopback, a random port, a new folder, and gone with the process that started it."""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from service.db.engines import CONNECT_TIMEOUT_S

SCRIPT = Path(__file__).parents[1] / "scripts" / "get-postgres.sh"
READY_WITHIN_S = 60.0
_USER = "lorafleet"
# Speed in place of safety: what a crash would lose is the test's.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=200")
# A call that is cancelled while it connects leaves its half of a handshake until Python collects it, and DROP DATABASE waits for
# that backend: a minute by default. We ourselves give up a connection after as long.
_SOON_TIRED = f"authentication_timeout={CONNECT_TIMEOUT_S}s"


@dataclass
class Postgres:
    """A running server."""

    port: int
    password: str
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str) -> None:
        """Outside any transaction, as CREATE DATABASE wants it."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, database: str, template: str = "template1") -> str:
        """A new database like `template`; its URL."""
        self.run(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        self.run(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            self.run("SELECT 1")
            return True
        return False

    def _conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={_USER} password={self.password} dbname={database} connect_timeout=5"


@contextmanager
def postgres_server(*settings: str, fast: bool = True, port: int | None = None) -> Iterator[Postgres]:
    """A new server, ended at the end. `settings` as in postgresql.conf: "max_connections=50"."""
    programs = Path(subprocess.run([SCRIPT], capture_output=True, text=True, check=True).stdout.strip())
    folder = Path(tempfile.mkdtemp(prefix="lorafleet-postgres-"))
    user = _unprivileged()
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        password = secrets.token_hex(16)
        _init(programs, folder, password, user)
        yield from _serve(programs, folder, password, user, (*(_FAST if fast else ()), _SOON_TIRED, *settings), port or _free_port())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(
    programs: Path, folder: Path, password: str, user: pwd.struct_passwd | None, settings: tuple[str, ...], port: int
) -> Iterator[Postgres]:
    options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
    command = [programs / "postgres", "-D", folder / "data", *(part for option in options for part in ("-c", option))]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=folder,
            preexec_fn=_die_with_us,
            **_as(user),
        )
    server = Postgres(port, password, process, log)
    try:
        _wait(server)
        yield server
    finally:
        _end(process)


def _init(programs: Path, folder: Path, password: str, user: pwd.struct_passwd | None) -> None:
    secret = folder / "password"
    secret.write_text(password)
    if user is not None:
        os.chown(secret, user.pw_uid, user.pw_gid)
    command = [programs / "initdb", "-D", folder / "data", "-U", _USER, "-E", "UTF8", "--no-locale", "--no-sync"]
    command += ["--auth=scram-sha-256", f"--pwfile={secret}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **_as(user))
    assert ran.returncode == 0, ran.stderr


def _wait(server: Postgres) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not server.answers():
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, f"PostgreSQL did not answer: {server.log.read_text()}"
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, at once, the hard way
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: whom it runs as instead. None: as ourselves."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody")


def _as(user: pwd.struct_passwd | None) -> dict:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _die_with_us() -> None:
    """An immediate shutdown should this process be killed: nothing else would end the server then."""
    if sys.platform == "linux":
        parent_death_signal = 1
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
