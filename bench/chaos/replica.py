"""One replica of the fleet: `lorafleet serve` as it is, but for its backend, shorter leases, and places to die at.

Not a way to serve: it is started by bench.chaos.fleet alone, from a process that has imported it before (a kill -9 every
second must not cost an import of everything).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.chaos.failpoints import Failpoints, install
from bench.chaos.sim_backend import SimBackend
from lorafleet.errors import Unavailable
from service import server
from service.control.attempts import RetryPolicy
from service.reconcile import copy_logs, launch, loops, observe, stop, tools
from service.replica import database
from service.settings import Settings
from service.storage import FileBacking

LEASE_S = 3.0
ORPHANS_EVERY_S = 3.0


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """What one replica is started with."""

    name: str
    folder: Path  # of the whole fleet
    settings: Settings
    database_url: str
    backend_port: int
    lease_s: float | None = LEASE_S  # None: as lorafleet serve has it

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
    _let_the_store_go_away(config.folder / "store-is-away")
    backend = SimBackend(config.backend_port, points.reach)
    server.database = lambda settings: database(replace(settings, database_url=config.database_url))
    server._backend = lambda *_, **__: backend
    original: Callable[..., Any] = server._tools

    async def patient(*arguments: Any, **named: Any) -> tools.Tools:
        made: tools.Tools = await original(*arguments, **named)
        policy = replace(made.stop, linger_s=6.0, stop_again_s=3.0, unreachable_s=120.0)
        return replace(made, stop=policy, retry=RetryPolicy(max_attempts=6, first_backoff_s=0.5, max_backoff_s=2.0))

    server._tools = patient
    try:
        asyncio.run(server.serve(config.settings, lambda address: logging.info("listening on %s", address)))
    except Unavailable as error:  # started while the database was away; it will be started again
        logging.error("%s", error)
        raise SystemExit(1) from None


def _shorten(lease_s: float) -> None:
    for module in (tools, launch, observe, stop, copy_logs):
        setattr(module, "LOCK_S", lease_s)  # noqa: B010 (each has its own)
    run_all = loops.run

    async def sooner(loop: loops.Loop, *rest: Any) -> None:
        await run_all(replace(loop, every_s=ORPHANS_EVERY_S) if loop.name == "orphans" else loop, *rest)

    loops.run = sooner


def _let_the_store_go_away(away: Path) -> None:
    """While that file is there, every call to a store fails as a call to an absent S3 does."""
    for name in ("get", "get_range", "put", "delete", "exists", "is_empty"):
        setattr(FileBacking, name, _unless(away, getattr(FileBacking, name)))


def _unless(away: Path, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: FileBacking, uri: str, *rest: Any) -> Any:
        if away.exists():
            raise Unavailable(f"{uri}: the store does not answer", reason="STORE_UNREACHABLE")
        return method(self, uri, *rest)

    return call
