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

    def add_clock(self) -> None:
        """What replicas add to the time of day: so is it set for all of them at once (see bench.chaos.replica)."""
        self._write("CREATE TABLE chaos_clock (ahead_us bigint NOT NULL)")
        self._write("INSERT INTO chaos_clock VALUES (0)")

    def set_clock(self, ahead_s: float) -> None:
        """The time of day is set to so much ahead of the machine's."""
        self._write("UPDATE chaos_clock SET ahead_us = %s", int(ahead_s * 1_000_000))

    def set_read_only(self, is_read_only: bool) -> None:
        """For every connection, from its next transaction on: as on a standby, or when the disk is mounted so."""
        self._write(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if is_read_only else 'off'}")
        self._write("SELECT pg_reload_conf()")

    def replace_spec(self, tenant: str, job_id: str, spec: str) -> None:
        """What an older server has accepted may be no spec to this one: of a job that waits."""
        self._write("UPDATE jobs SET spec = %s::json WHERE tenant = %s AND job_id = %s AND state = 'QUEUED'", spec, tenant, job_id)

    def _write(self, statement: str, *values: Any) -> None:
        url, options = self.url.replace("+psycopg", ""), "-c default_transaction_read_only=off"
        with psycopg.connect(url, connect_timeout=10, autocommit=True, options=options) as connection:
            connection.execute(statement.encode(), values or None)

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
