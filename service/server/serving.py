"""Puts the parts of `lorafleet serve` together. Start-up is recovery: the loops find what an earlier process left."""

import asyncio
import fcntl
import logging
import math
import os
import resource
import signal
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import grpc.aio
import psutil

from lorafleet import state_files
from lorafleet.errors import FailedPrecondition, Unavailable
from lorafleet.spec import DEFAULT_PROFILE
from lorafleet.transport.addresses import joined
from lorafleet.v1 import (
    access_service_pb2_grpc,
    adapter_service_pb2_grpc,
    batch_service_pb2_grpc,
    generation_service_pb2_grpc,
    report_service_pb2_grpc,
    training_service_pb2_grpc,
    webhook_service_pb2_grpc,
)
from service.access.authorization import Access
from service.access.configured import authenticators, report_tls_ca, server_tls
from service.api.interceptors.authentication import anybody, by
from service.api.options import new_server
from service.api.servicers.adapters import AdapterServicer
from service.api.servicers.administration import AccessServicer
from service.api.servicers.batches import BatchServicer
from service.api.servicers.generations import GenerationServicer
from service.api.servicers.health import Healths
from service.api.servicers.reflection import add_reflection
from service.api.servicers.reports import ReportServicer
from service.api.servicers.training import TrainingServicer
from service.api.servicers.webhooks import WebhookServicer
from service.api.watch.adapters import AdapterFeed
from service.api.watch.feed import Feed
from service.backends.base import Backend
from service.backends.http import Http
from service.backends.instrumented import ObservedBackend
from service.backends.local_ray import LocalRay
from service.backends.ray_jobs import JoinedRay, RayJobs, ambient_token
from service.control.admission import Limits
from service.control.memory import GIB
from service.control.packing import PackLimits
from service.control.runs import StopPolicy
from service.control.standby import StandbyRules
from service.core.wakeups import Bell
from service.db import events
from service.db.database import Database
from service.endpoints.delivery import Sender
from service.generations.creation import Generations
from service.jobs.batches import Batches
from service.jobs.jobs import Jobs
from service.observability.health import Readiness, backend_check, database_check
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile import loops
from service.reconcile.context import Tools
from service.reconcile.silence import Hearing, Probe, probe_of
from service.registry.imports import Imports
from service.runs.locations import RunLocations
from service.runs.reports import Reports
from service.runs.tokens import RunTokens
from service.runs.warm_workers import Warmth
from service.server import state_dir
from service.server.database import database
from service.server.exporters import observing
from service.settings.serve_settings import ReplicaRole, Settings
from service.store.client import Store
from service.store.credentials import CredentialsFile

FINISH_CALLS_S = 5.0
FINISH_STEPS_S = 10.0
MANY_FILES = 65_536
_USERS = ("TrainingService", "BatchService", "GenerationService", "AdapterService", "WebhookService", "AccessService")
USERS_SERVICES = tuple(f"lorafleet.v1.{name}" for name in _USERS)
SERVICES = (*USERS_SERVICES, "lorafleet.v1.ReportService")

log = logging.getLogger(__name__)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. `announce` gets the address once calls are answered.

    Raises FailedPrecondition (STATE_DIR_IN_USE) and Unavailable (PORT_TAKEN).
    """
    stopping = _on_signal()
    state_dir.prepare(settings)
    _allow_many_files()
    with _only_one(settings.state_dir):
        async with database(settings) as db, _listening(settings, db) as (server, address):
            backend = ObservedBackend(_backend(settings, db.bell))
            try:
                tools = await _tools(settings, db, backend, address)
                serves_calls = settings.role is not ReplicaRole.RECONCILE
                healths = await (add_services(server, tools, stopping) if serves_calls else add_health(server, tools))
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(observing(settings, tools))
                    await server.start()
                    announce(address)
                    await _work(server, tools, healths, stopping, runs_loops=settings.role is not ReplicaRole.API)
            finally:
                await backend.close()


async def _work(server: grpc.aio.Server, tools: Tools, healths: Healths, stopping: asyncio.Event, *, runs_loops: bool) -> None:
    """Loops and calls until `stopping`, then both to their end: no new call, the ones under way, the steps under way."""
    working = asyncio.create_task(loops.run_all(tools, stopping) if runs_loops else asyncio.sleep(0))
    following = asyncio.create_task(healths.follow())
    await stopping.wait()
    log.info("stopping")
    tools.readiness.drain()
    await following
    tools.db.bell.ring()  # wakes loops and watchers
    await server.stop(FINISH_CALLS_S)
    await tools.candidates.planner.shapes.close()
    try:
        await asyncio.wait_for(working, FINISH_STEPS_S)
    except TimeoutError:
        log.warning("a step took too long; the next holder of its row will continue")


def _on_signal() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _allow_many_files() -> None:
    """Every connection takes a file, of strangers too: as many as we may, since the database and the loops need some as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(MANY_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _only_one(folder: Path) -> Generator[None]:
    """Holds the state directory: the lock dies with the process, however it ends."""
    with state_files.made_private(folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another lorafleet serve uses {folder}; stop it, or choose another --state-dir"
            raise FailedPrecondition(message, reason="STATE_DIR_IN_USE") from None
        yield


@asynccontextmanager
async def _listening(settings: Settings, db: Database) -> AsyncGenerator[tuple[grpc.aio.Server, str]]:
    known = authenticators(settings.access, db)
    server = new_server(settings.calls, anybody if known is None else by(known), db)
    address = _bind(server, settings)
    if settings.access.report_listen:
        listen(server, settings.access.report_listen, server_tls(settings.access, ask_for_certificates=False))
    try:
        yield server, address
    finally:
        await server.stop(None)


def _bind(server: grpc.aio.Server, settings: Settings) -> str:
    """The address that is listened on. Of free ports last time's comes first: runs that outlived us report there."""
    remembered = settings.state_dir / "port"
    wanted = [settings.port] if settings.port else [state_files.read(remembered, int) or 0, 0]
    tls = server_tls(settings.access)
    for port in wanted:
        try:
            bound = listen(server, joined(settings.host, port), tls)
        except Unavailable:
            continue
        state_files.write(remembered, str(bound))
        return joined(settings.host, bound)
    message = (
        f"port {settings.port} of {settings.host} is in use; stop what listens there, or choose another --listen (port 0: any free one)"
    )
    raise Unavailable(message, reason="PORT_TAKEN")


def listen(server: grpc.aio.Server, address: str, tls: grpc.ServerCredentials | None) -> int:
    """The port. Raises Unavailable (PORT_TAKEN)."""
    try:
        return server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls)
    except RuntimeError:
        raise Unavailable(f"{address} is in use; stop what listens there, or choose another", reason="PORT_TAKEN") from None


def _backend(settings: Settings, bell: Bell) -> Backend:
    if settings.kuberay is not None:
        from service.backends.kuberay.api import Api
        from service.backends.kuberay.backend import KubeRay

        return KubeRay(settings.kuberay, Api())
    if settings.ray_address is not None:
        http = Http()
        return RayJobs(JoinedRay(settings.ray_address, ambient_token(os.environ), http), http)
    http = Http(loopback=True)
    ray = LocalRay(settings.state_dir, http, ready=bell.ring)
    ray.start()
    return RayJobs(ray, http)


async def _tools(settings: Settings, db: Database, backend: Backend, address: str) -> Tools:
    async with db.snapshot() as tx:
        service = await events.service(tx)
    local = settings.ray_address is None and settings.kuberay is None
    store = Store(CredentialsFile(settings.access.store_credentials))
    shapes = ShapeCache(store, db.clock, ring=db.bell.ring)
    return Tools(
        db=db,
        backend=backend,
        store=store,
        tokens=RunTokens(service.run_token_key, settings.access.run_token_ttl_s),
        locations=RunLocations(
            artifacts_uri=settings.artifacts_uri,
            cache_uri=settings.cache_uri,
            ray_storage_uri=str(settings.state_dir / "runs") if local else f"{settings.artifacts_uri}/runs",
            report_address=settings.access.report_address or settings.access.report_listen or address,
            report_tls=settings.access.is_secure,
            report_tls_ca=report_tls_ca(settings.access),
            otlp_endpoint=settings.otlp_endpoint,
        ),
        endpoints=Sender(allowed=settings.webhook_networks),
        candidates=Candidates(Planner(shapes, _policy(settings))),
        up_since=db.even_now(),
        hearing=Hearing(probe=_report_probe(settings)),
        readiness=Readiness({"database": database_check(db), "backend": backend_check(backend)}),
        stop=StopPolicy(**asdict(settings.timeouts)),
        profiles=frozenset(settings.kuberay.profiles) if settings.kuberay else frozenset({DEFAULT_PROFILE}),
        standby=_standby_rules(settings, is_local=local),
        free_memory_bytes=_free_memory_bytes if local else lambda: math.inf,
        limits=Limits(
            max_running_runs=settings.capacity.max_running_runs,
            capacity_gpus=settings.capacity.capacity_gpus,
            capacity_cpus=settings.capacity.capacity_cpus,
        ),
    )


def _standby_rules(settings: Settings, *, is_local: bool) -> StandbyRules:
    return StandbyRules(num_groups=settings.standby.num_groups(is_local=is_local), memory_gib=settings.standby.standby_memory_gib)


def _free_memory_bytes() -> float:
    return psutil.virtual_memory().available


def _report_probe(settings: Settings) -> Probe | None:
    """None: this server takes reports itself."""
    if settings.role is not ReplicaRole.RECONCILE:
        return None
    access = settings.access
    return probe_of(access.report_address, report_tls_ca(access), tls=access.is_secure)


def _policy(settings: Settings) -> Policy:
    capacity, own_pods = settings.capacity, settings.kuberay.tenants if settings.kuberay else ()
    memory_gib = capacity.worker_memory_gib
    return Policy(
        limits=PackLimits(max_pack_size=capacity.max_pack_size, worker_memory_bytes=None if memory_gib is None else int(memory_gib * GIB)),
        num_free_runs=capacity.max_running_runs,
        isolated_tenants=frozenset({*capacity.isolated_tenants, *own_pods}),
    )


async def add_services(server: grpc.aio.Server, tools: Tools, stopping: asyncio.Event) -> Healths:
    """The services of ours, with health and reflection."""
    access = Access(tools.db)
    jobs = Jobs(tools.db, tools.store, tools.locations.artifacts_uri, tools.stop, tools.profiles)
    feed = Feed(tools.db, stopping)
    training = TrainingServicer(access, tools.db, jobs, tools.backend, tools.store, feed)
    cast(Any, training_service_pb2_grpc).add_TrainingServiceServicer_to_server(training, server)
    batches = Batches(tools.db, tools.store, tools.locations.artifacts_uri, tools.stop, tools.profiles)
    batching = BatchServicer(access, tools.db, batches, tools.candidates.planner, feed)
    cast(Any, batch_service_pb2_grpc).add_BatchServiceServicer_to_server(batching, server)
    generations = Generations(tools.db, tools.store, tools.locations.artifacts_uri, tools.profiles)
    drawing = GenerationServicer(access, tools.db, jobs, generations, tools.store, feed)
    cast(Any, generation_service_pb2_grpc).add_GenerationServiceServicer_to_server(drawing, server)
    cast(Any, access_service_pb2_grpc).add_AccessServiceServicer_to_server(
        AccessServicer(access, tools.db, tools.store.credentials), server
    )
    imports = Imports(db=tools.db, store=tools.store, parser=tools.parser, artifacts_uri=tools.locations.artifacts_uri)
    registry = AdapterServicer(access, tools.db, tools.store, tools.parser, imports, AdapterFeed(tools.db, stopping))
    cast(Any, adapter_service_pb2_grpc).add_AdapterServiceServicer_to_server(registry, server)
    hooks = WebhookServicer(access, tools.db, tools.endpoints)
    cast(Any, webhook_service_pb2_grpc).add_WebhookServiceServicer_to_server(hooks, server)
    warmth = Warmth(tokens=tools.tokens, locations=tools.locations, stop=tools.stop, retry=tools.retry)
    reporting = ReportServicer(Reports(tools.db, warmth))
    cast(Any, report_service_pb2_grpc).add_ReportServiceServicer_to_server(reporting, server)
    add_reflection(server, USERS_SERVICES)
    return await add_health(server, tools, SERVICES)


async def add_health(server: grpc.aio.Server, tools: Tools, names: Sequence[str] = ()) -> Healths:
    """The standard health service, of the server and of these services."""
    healths = Healths(tools.readiness, names)
    healths.add_to(server)
    await healths.tell()
    return healths
