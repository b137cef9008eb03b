"""`make bench-service`: what the control plane costs over its database, and whether that stays as jobs pile up.

Every figure is a ratio within one run, or a time with its conditions. Servers are processes of their own with the real interceptors
and services of `lorafleet serve` and none of its loops; the callers are another. Creates go to two replicas on PostgreSQL, as one
process uses one core, and to one on SQLite. PostgreSQL and SQLite commit durably: "raw" is one connection that inserts and commits
one small row after another on the same database, before and after.
Writes bench/results/service.json and service.png.
"""

import argparse
import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psycopg

from bench import results_file, service_rows, service_serving
from bench.service_takeover import takeover_s
from lorafleet import spec, spec_proto
from lorafleet.v1 import training_service_pb2 as pb
from lorafleet.v1 import training_service_pb2_grpc as rpc
from service.backends.base import Alive
from service.backends.fake import FakeBackend
from service.core.clock import FakeClock, SystemClock
from service.core.wakeups import Bell
from service.db import migrate
from service.db.database import Database
from service.db.engines import engine_of, sqlite_url
from service.jobs.messages import job_event
from service.reconcile.admit import admit_once
from service.reconcile.copy_logs import copy_log_once
from service.reconcile.launch import launch_once
from service.reconcile.observe import observe_once
from service.reconcile.orphans import end_orphans_once
from service.reconcile.stop import notice_silence_once, stop_once
from tests.postgres import postgres_server

CALLERS = 256
REPLICAS = {"postgresql": 2, "sqlite": 1}
CREATE_S = 8.0
RAW_S = 2.0
WATCHERS = 1000
WATCHERS_WITHIN_S = 180
CHANGED = "change"  # id of the job that all of them wait for
PAGES = 60
TICKS = 5
MANY, FEW = 100_000, 100
FINISHED, LIVE = 10_000, 100


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of rows, callers and seconds: less for a quick look")
    scale = parser.parse_args().scale
    found: dict[str, float] = Told()
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name, postgres_server(fast=False) as server:
        folder = Path(name)
        make_inputs(folder)
        for kind, url in (("postgresql", server.create("creates")), ("sqlite", sqlite_url(folder / "creates.db"))):
            migrate.upgrade(url)
            with ExitStack() as servers:
                addresses = [servers.enter_context(serving(url, folder)) for _ in range(REPLICAS[kind])]
                found |= {f"{key}_{kind}": value for key, value in asyncio.run(creates(url, addresses, folder, scale)).items()}
                if kind == "postgresql":
                    found |= asyncio.run(watchers(addresses[0], folder, int(WATCHERS * scale)))
        found["create_over_raw_commit"] = found["create_over_raw_commit_postgresql"]
        found["get_p99_ms"] = found["get_p99_ms_postgresql"]
        for kind, make in (("postgresql", server.create), ("sqlite", lambda database: sqlite_url(folder / f"{database}.db"))):
            found |= {f"{key}_{kind}": value for key, value in pages(make("pages"), folder, scale).items()}
            found |= {f"{key}_{kind}": value for key, value in asyncio.run(ticks(make("live"), make("finished"), folder, scale)).items()}
        for key in ("list_100k_over_100", "tick_10k_finished_over_none"):
            found[key] = found[f"{key}_postgresql"]
        found["takeover_s"] = takeover_s(folder / "takeover", server.create("takeover"))
    results_file.write("service", found)
    draw(found)
    return 0


class Told(dict[str, float]):
    """Figures, each printed as it comes: the whole takes minutes."""

    def __ior__(self, more: Any) -> "Told":
        print(*(f"{key} {value:.4g}" for key, value in dict(more).items()), sep="\n", flush=True)
        return super().__ior__(more)


def make_inputs(folder: Path) -> None:
    """A base and a data set to name."""
    (folder / "base").mkdir()
    (folder / "base" / "model_index.json").write_text("{}")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"png")


@contextmanager
def serving(url: str, folder: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=service_serving.main, args=(url, str(folder), send), daemon=True)
    process.start()
    if not receive.poll(60):
        raise RuntimeError("the server did not start within 60 s")
    try:
        yield receive.recv()
    finally:
        process.terminate()
        process.join(10)


async def creates(url: str, addresses: Sequence[str], folder: Path, scale: float) -> dict[str, float]:
    """Creates by many callers, at each server in turn, with one that reads all the while; raw commits before and after."""
    before = raw_commits_per_s(url, RAW_S * scale)
    async with AsyncExitStack() as channels:
        replicas = [await channels.enter_async_context(stub(address)) for address in addresses]
        in_turn, job = cycle(replicas), request(folder, "acme")
        first = await replicas[0].CreateTrainingJob(job)
        waits_s: list[float] = []
        reader = asyncio.create_task(_read(replicas[0], first.name, waits_s))

        async def create() -> None:
            jobs = next(in_turn)
            await until_answered(lambda: jobs.CreateTrainingJob(job))

        per_s = await _per_second(create, CREATE_S * scale)
        reader.cancel()
    raw = (before + raw_commits_per_s(url, RAW_S * scale)) / 2
    p99_ms = 1000 * sorted(waits_s)[int(len(waits_s) * 0.99)]
    return {
        "replicas": len(addresses),
        "callers": CALLERS,
        "create_per_s": per_s,
        "raw_commits_per_s": raw,
        "create_over_raw_commit": per_s / raw,
        "get_p99_ms": p99_ms,
    }


async def _read(jobs: Any, name: str, waits_s: list[float]) -> None:
    while True:
        started_s = time.perf_counter()
        await until_answered(lambda: jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=name)))
        waits_s.append(time.perf_counter() - started_s)
        await asyncio.sleep(0.01)


async def _per_second(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """Calls finished per second while CALLERS make one after another."""
    end_s = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end_s:
            await call()
            done += 1

    started_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter() - started_s)


def raw_commits_per_s(url: str, seconds: float) -> float:
    """One connection; a row, a commit, and again."""
    create, insert = "CREATE TABLE IF NOT EXISTS raw (value TEXT)", "INSERT INTO raw (value) VALUES ('a small row')"
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.partition(":///")[2], isolation_level=None, timeout=20)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    else:
        connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    connection.execute(create)
    done, started_s = 0, time.perf_counter()
    while time.perf_counter() < started_s + seconds:
        connection.execute(insert)
        done += 1
    took_s = time.perf_counter() - started_s
    connection.close()
    return done / took_s


async def watchers(address: str, folder: Path, number: int) -> dict[str, float]:
    """All of them on one server, each going on with its token when it is sent away as the client does; a change, and when the
    last has it."""
    channels = [grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(20)]
    stubs: list[Any] = [rpc.TrainingServiceStub(channel) for channel in channels]
    crowd = Crowd(number)
    tasks = [asyncio.create_task(crowd.watch(stubs[place % len(stubs)])) for place in range(number)]
    try:
        async with asyncio.timeout(WATCHERS_WITHIN_S):
            await crowd.complete.wait()
        sent_away = crowd.num_sent_away
        started_s = time.perf_counter()
        await until_answered(lambda: stubs[0].CreateTrainingJob(request(folder, "watched", CHANGED)))
        await asyncio.wait(tasks, timeout=WATCHERS_WITHIN_S)
        took_s = time.perf_counter() - started_s
    finally:
        for task in tasks:
            task.cancel()
        for channel in channels:
            await channel.close(None)
    told = sum(task.done() and not task.cancelled() and task.exception() is None for task in tasks)
    if told < number:
        raise RuntimeError(f"{number - told} of {number} watchers did not see the change within {WATCHERS_WITHIN_S} s")
    return {"watchers": number, "watchers_told": told, "watchers_told_s": took_s, "watchers_sent_away": crowd.num_sent_away - sent_away}


class Crowd:
    """Watchers of one tenant."""

    def __init__(self, number: int) -> None:
        self._missing = number
        self.complete = asyncio.Event()  # all were shown what there is
        self.num_sent_away = 0

    def _arrive(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.complete.set()

    async def watch(self, jobs: Any) -> None:
        """Until the change is seen."""
        token = ""
        while True:
            try:
                async for event in jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(parent="tenants/watched", resume_token=token)):
                    if not token:
                        self._arrive()
                    token = event.resume_token
                    if event.training_job.name.endswith(f"/{CHANGED}"):
                        return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.num_sent_away += 1
                await asyncio.sleep(random.uniform(0.2, 2.0))


async def until_answered(call: Callable[[], Awaitable[Any]]) -> Any:
    """As the client does: a server that is busy is asked again."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(random.uniform(0.05, 0.3))


def pages(url: str, folder: Path, scale: float) -> dict[str, float]:
    """A page of a tenant with many jobs, and one of a tenant with few, by turns."""
    migrate.upgrade(url)

    async def fill() -> None:
        async with database(url, SystemClock()) as db:
            await service_rows.add_jobs(db, str(folder), "many", int(MANY * scale))
            await service_rows.add_jobs(db, str(folder), "few", FEW)
        analyze(url)

    asyncio.run(fill())
    with serving(url, folder) as address:
        return asyncio.run(_pages(address))


async def _pages(address: str) -> dict[str, float]:
    took_s: dict[str, list[float]] = {"many": [], "few": []}
    async with stub(address) as jobs:
        for _ in range(PAGES):
            for tenant, times in took_s.items():
                started_s = time.perf_counter()
                page = await jobs.ListTrainingJobs(pb.ListTrainingJobsRequest(parent=f"tenants/{tenant}", page_size=50))
                times.append(time.perf_counter() - started_s)
                if len(page.training_jobs) != 50:
                    raise RuntimeError(f"a page of {tenant} has {len(page.training_jobs)} jobs")
    many_s, few_s = (statistics.median(times) for times in took_s.values())
    return {"list_100k_over_100": many_s / few_s, "list_100k_ms": 1000 * many_s}


async def ticks(live_url: str, finished_url: str, folder: Path, scale: float) -> dict[str, float]:
    """Every loop until it finds nothing, once a second, on 100 live jobs and on as many with 10,000 finished, by turns."""
    took_s: dict[str, list[float]] = {}
    async with ticking(live_url, folder, 0) as alone, ticking(finished_url, folder, int(FINISHED * scale)) as among:
        for _ in range(TICKS):
            for name, tick in (("alone", alone), ("among", among)):
                took_s.setdefault(name, []).append(await tick())
    alone_s, among_s = statistics.median(took_s["alone"]), statistics.median(took_s["among"])
    return {"tick_10k_finished_over_none": among_s / alone_s, "tick_ms": 1000 * among_s}


@asynccontextmanager
async def ticking(url: str, folder: Path, num_finished: int, num_live: int = LIVE) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """A tick of a server's loops on a database of its own; the seconds that it took."""
    migrate.upgrade(url)
    clock, backend = FakeClock(), FakeBackend()
    async with database(url, clock) as db:
        await service_rows.add_jobs(db, str(folder), "past", num_finished)
        for run in await service_rows.add_live_jobs(db, str(folder), "live", num_live):
            backend._runs[run], backend.instances[run] = Alive(), "bench"
        analyze(url)
        tools = await service_serving.tools(db, str(folder), backend)
        steps = (admit_once, launch_once, observe_once, notice_silence_once, stop_once, copy_log_once, end_orphans_once)

        async def tick() -> float:
            clock.advance(1.5)
            started_s = time.perf_counter()
            for step in steps:
                while await step(tools):
                    pass
            return time.perf_counter() - started_s

        await tick()
        yield tick


@asynccontextmanager
async def database(url: str, clock: Any) -> AsyncIterator[Database]:
    db = Database(engine_of(url), clock, Bell(), job_event)
    try:
        yield db
    finally:
        await db.close()


def analyze(url: str) -> None:
    """What autovacuum does within a minute of so many inserts."""
    if url.startswith("postgresql"):
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")


@asynccontextmanager
async def stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield rpc.TrainingServiceStub(channel)


def request(folder: Path, tenant: str, job_id: str = "") -> pb.CreateTrainingJobRequest:
    """A job as a platform would send it; every one its own."""
    fields = {"base_model": {"uri": f"file://{folder}/base"}, "dataset": {"uri": f"file://{folder}/pictures"}}
    return pb.CreateTrainingJobRequest(
        parent=f"tenants/{tenant}", training_job_id=job_id, training_job=pb.TrainingJob(spec=spec_proto.to_proto(spec.parse(fields)))
    )


def draw(found: dict[str, float]) -> None:
    """The ratios beside their bounds."""
    from matplotlib.figure import Figure

    bounds = {"create_over_raw_commit": 0.3, "list_100k_over_100": 2.0, "tick_10k_finished_over_none": 1.2}
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    places = range(len(bounds))
    for shift, kind in ((-0.2, "postgresql"), (0.2, "sqlite")):
        axes.bar([place + shift for place in places], [found[f"{key}_{kind}"] for key in bounds], width=0.36, label=kind)
    for place, bound in zip(places, bounds.values(), strict=True):
        axes.hlines(bound, place - 0.45, place + 0.45, color="black", linestyle="--")
    axes.set_xticks(
        list(places),
        ["creates / raw commits\n(at least)", "page of 100,000 / of 100\n(at most)", "tick with 10,000 finished\n/ without (at most)"],
    )
    axes.set(title="The control plane over its database; dashes: what we ask for")
    axes.legend()
    figure.savefig(results_file.RESULTS / "service.png", dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
