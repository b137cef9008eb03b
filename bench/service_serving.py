"""Servers for benches: the very server of `lorafleet serve`, with its services, a backend that does nothing, and no loops."""

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from service.api.interceptors.authentication import anybody
from service.api.options import new_server
from service.backends.base import Backend
from service.backends.fake import FakeBackend
from service.core.clock import SystemClock
from service.core.wakeups import Bell
from service.db import events
from service.db.database import Database
from service.db.engines import engine_of
from service.jobs.messages import job_event
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile.context import Tools
from service.runs.locations import RunLocations
from service.runs.tokens import RunTokens
from service.server.serving import add_services, listen
from service.settings.serve_settings import CallLimits
from service.store.client import Store

# As the operators of a platform set them whose callers all come through one balancer: here they are one tenant at one address.
LIMITS = CallLimits(max_requests_per_s=0, max_unknown_calls_per_address=1_000)


def main(url: str, folder: str, ready: Connection) -> None:
    """Serves until it is ended."""
    asyncio.run(_serve(url, folder, ready))


async def _serve(url: str, folder: str, ready: Connection) -> None:
    db = Database(engine_of(url), SystemClock(), Bell(), job_event)
    server = new_server(LIMITS, anybody, db)
    port = listen(server, "127.0.0.1:0", None)
    await add_services(server, await tools(db, folder, FakeBackend()), asyncio.Event())
    await server.start()
    ready.send(f"127.0.0.1:{port}")
    await server.wait_for_termination()


async def tools(db: Database, folder: str, backend: Backend) -> Tools:
    """What services and loops work with."""
    async with db.snapshot() as tx:
        key = (await events.service(tx)).run_token_key
    artifacts = f"file://{Path(folder)}/artifacts"
    store = Store()
    return Tools(
        db=db,
        backend=backend,
        store=store,
        tokens=RunTokens(key),
        locations=RunLocations(artifacts_uri=artifacts, cache_uri=f"{artifacts}/cache", ray_storage_uri="", report_address=""),
        candidates=Candidates(Planner(ShapeCache(store, db.clock), Policy())),
        up_since=db.clock.now(),
    )
