"""One replica of the fleet: `lorafleet serve` as it is, but for its backend, shorter leases, and places to die at.

Not a way to serve: it is started by bench.chaos.fleet alone, from a process that has imported it before (a kill -9 every
second must not cost an import of everything).
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.chaos.failpoints import Failpoints, install
from bench.chaos.sim_backend import SimBackend
from lorafleet.contract import store_faults
from lorafleet.contract.store_faults import Fault
from lorafleet.errors import Unavailable
from service.control.attempts import RetryPolicy
from service.db import database as transactions
from service.reconcile import context, copy_logs, launch, loops, observe, stop
from service.server import serving as server
from service.server.database import database
from service.settings.serve_settings import Settings
from service.store import file_store
from service.store.file_store import FileBacking
from service.store.refusals import raised

LEASE_S = 3.0
ORPHANS_EVERY_S = 3.0
# Names of files in the fleet's folder: while one is there, that is what is wrong with every replica's store.
STORE_AWAY, CREDENTIALS_EXPIRED, DISK_FULL = "store-is-away", "credentials-have-expired", "disk-is-full"
_NOW = text(
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + (SELECT ahead_us FROM chaos_clock), clock_carried_us FROM service"
)


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """What one replica is started with."""

    name: str
    folder: Path  # of the whole fleet
    settings: Settings
    database_url: str
    backend_port: int
    lease_s: float | None = LEASE_S  # None: as lorafleet serve has it
    clock_is_set: bool = False  # by the harness: FleetDatabase.add_clock

    @property
    def failpoint(self) -> Path:
        return self.folder / f"{self.name}.failpoint"


def main(config: ReplicaConfig) -> None:
    """Serves until SIGTERM, or worse."""
    log = (config.folder / f"{config.name}.log").open("a")
    logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    points = Failpoints(config.failpoint)
    install(points)
    if config.lease_s is not None:
        _shorten(config.lease_s)
    if config.clock_is_set:
        transactions._NOW = _NOW
    _let_the_store_fail(config.folder)
    backend = SimBackend(config.backend_port, points.reach)
    server.database = lambda settings: database(replace(settings, database_url=config.database_url))
    server._backend = lambda *_, **__: backend
    original: Callable[..., Any] = server._tools

    async def patient(*arguments: Any, **named: Any) -> context.Tools:
        made: context.Tools = await original(*arguments, **named)
        policy = replace(made.stop, linger_s=6.0, stop_again_s=3.0, unreachable_s=120.0)
        return replace(made, stop=policy, retry=RetryPolicy(max_attempts=6, first_backoff_s=0.5, max_backoff_s=2.0))

    server._tools = patient
    try:
        asyncio.run(server.serve(config.settings, lambda address: logging.info("listening on %s", address)))
    except Unavailable as error:  # started while the database was away; it will be started again
        logging.error("%s", error)
        raise SystemExit(1) from None


def _shorten(lease_s: float) -> None:
    for module in (context, launch, observe, stop, copy_logs):
        setattr(module, "LOCK_S", lease_s)  # noqa: B010 (each has its own)
    run_all = loops.run

    async def sooner(loop: loops.Loop, *rest: Any) -> None:
        await run_all(replace(loop, every_s=ORPHANS_EVERY_S) if loop.name == "orphans" else loop, *rest)

    loops.run = sooner


def _let_the_store_fail(folder: Path) -> None:
    """While there is a file of that name in `folder`, every call to a store fails as a call to such an S3, or such a disk, does."""
    for name in ("get", "get_range", "put", "put_if_absent", "delete", "exists", "is_empty"):
        method = getattr(FileBacking, name)
        method = _unless(folder / STORE_AWAY, store_faults.NO_ANSWER, method)
        setattr(FileBacking, name, _unless(folder / CREDENTIALS_EXPIRED, store_faults.of_answer("ExpiredToken", 400), method))
    write: Callable[..., str] = file_store._written_beside

    def write_unless_full(*arguments: Any) -> str:
        if (folder / DISK_FULL).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    file_store._written_beside = write_unless_full


def _unless(flag: Path, fault: Fault, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: FileBacking, uri: str, *rest: Any, **named: Any) -> Any:
        if flag.exists():
            raise raised(f"{uri}: {fault.what}", fault)
        return method(self, uri, *rest, **named)

    return call
