"""The fleet's PostgreSQL: durable settings, killed and started again on the same port and the same files."""

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from tests import postgres

NAME = "chaos"


@dataclass
class FleetDatabase:
    """A server that can be restarted."""

    server: postgres.Postgres
    url: str

    def behind(self, port: int) -> str:
        """The same database through a proxy's port."""
        return self.url.replace(f":{self.server.port}/", f":{port}/")

    def restart(self) -> None:
        """As a crash: every connection is lost, and what was not committed."""
        old = self.server.process
        old.send_signal(signal.SIGQUIT)
        old.wait(30)
        log = self.server.log.open("ab")
        user: Any = postgres._unprivileged()
        restarted: subprocess.Popen[bytes] = subprocess.Popen(  # pyright: ignore[reportAssignmentType] (of `user`, bytes or text)
            old.args,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=self.server.log.parent,
            **postgres._as(user),
        )
        self.server.process = restarted
        deadline = time.monotonic() + 60
        while not self.server.answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL did not come back: {self.server.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def limit_running_jobs(self, limits: Mapping[str, int]) -> None:
        """Tenants with a quota, as their operator would set them up."""
        insert = (
            "INSERT INTO tenants (id, display_name, weight, max_running_jobs, store_credentials, is_isolated, create_time, update_time,"
            " version) VALUES (%s, '', 1, %s, '', false, 0, 0, 1)"
        )
        with psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=10) as connection:
            for tenant, limit in limits.items():
                connection.execute(insert, (tenant, limit))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of ours answers, past every proxy."""
        with psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=10) as connection:
            return connection.execute(query.encode()).fetchall()


@contextmanager
def fleet_database() -> Iterator[FleetDatabase]:
    """Ended at the end, whichever process of it lives then."""
    with postgres.postgres_server("max_connections=150", "shared_buffers=64MB", fast=False) as server:
        database = FleetDatabase(server, server.create(NAME))
        try:
            yield database
        finally:
            with suppress(ProcessLookupError):
                server.process.send_signal(signal.SIGQUIT)
            server.process.wait(30)
