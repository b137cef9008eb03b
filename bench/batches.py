"""`make bench-batches`: how long a server takes to accept batches of 100 to 10,000 items, and whether that grows in proportion.

A real gRPC server in this process on SQLite, with nothing that trains; the caller sits in a thread with its messages ready.
Every item has a data set folder of its own. Beside it: how long the server left another call waiting meanwhile, and what
reading, watching and cancelling the batch take. Writes bench/results/batches.json and batches.png, of each size the round
that accepted it fastest: all else that the machine does only makes a round slower.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench import results_file
from bench.service_serving import LIMITS
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import batch_service_pb2_grpc as rpc
from lorafleet.v1 import spec_pb2
from service.api.interceptors.authentication import anybody
from service.api.options import new_server
from service.backends.fake import FakeBackend
from service.core.clock import SystemClock
from service.core.wakeups import Bell
from service.db import migrate
from service.db.database import Database
from service.db.engines import sqlite_engine, sqlite_url
from service.jobs.messages import job_event
from service.planning.base_shapes import ShapeCache
from service.planning.planner import Planner, Policy
from service.planning.queued_jobs import Candidates
from service.reconcile.context import Tools
from service.runs.locations import RunLocations
from service.runs.tokens import RunTokens
from service.server.serving import add_services, listen
from service.store.client import Store

SIZES = (100, 300, 1_000, 3_000, 10_000)
ROUNDS = 3
ITEMS_PER_MESSAGE = 1_000
PARENT = "tenants/acme"
TICK_S = 0.005  # how often the event loop is asked whether it is there


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that a batch took in each of its calls."""

    accept_s: float
    stall_s: float  # longest time for which the event loop did nothing else while the batch was accepted
    get_s: float
    snapshot_s: float  # a watch's first part, every job of the batch
    cancel_s: float


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name:
        folder = Path(name)
        make_folders(folder)
        asyncio.run(measure(folder, SIZES[0]))  # imports, and the first connection
        timings = {size: [asyncio.run(measure(folder, size)) for _ in range(ROUNDS)] for size in SIZES}
    best = {size: min(of_size, key=lambda timing: timing.accept_s) for size, of_size in timings.items()}
    results_file.write("batches", summary(best))
    draw(best)
    return 0


def make_folders(folder: Path) -> None:
    """A base and the data sets: folders with one small file each."""
    (folder / "base").mkdir()
    (folder / "base" / "model_index.json").write_text("{}")
    for index in range(max(SIZES)):
        (folder / "data" / f"style-{index:05d}").mkdir(parents=True)
        (folder / "data" / f"style-{index:05d}" / "a.png").write_bytes(b"png")


async def measure(folder: Path, size: int) -> Timing:
    """One batch on a server with an empty database."""
    async with serving(folder) as address:
        with grpc.insecure_channel(address) as channel:
            stub: Any = rpc.BatchServiceStub(channel)
            requests = list(messages(folder, size))
            beat = asyncio.create_task(longest_stall())
            accept_s = await seconds(lambda: stub.CreateBatch(iter(requests)))
            beat.cancel()
            name = f"{PARENT}/batches/bench"
            return Timing(
                accept_s=accept_s,
                stall_s=await beat,
                get_s=await seconds(lambda: stub.GetBatch(pb.GetBatchRequest(name=name))),
                snapshot_s=await seconds(lambda: read_snapshot(stub, name)),
                cancel_s=await seconds(lambda: stub.CancelBatch(pb.CancelBatchRequest(name=name))),
            )


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """The address of a server with the services of `lorafleet serve`, and none of its loops."""
    state = folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    migrate.upgrade(sqlite_url(state / "lorafleet.db"))
    db = Database(sqlite_engine(state / "lorafleet.db"), SystemClock(), Bell(), job_event)
    server = new_server(LIMITS, anybody, db)
    port = listen(server, "127.0.0.1:0", None)
    stopping = asyncio.Event()
    await add_services(server, tools(db, f"file://{state}/artifacts"), stopping)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stopping.set()
        db.bell.ring()
        await server.stop(5)
        await db.close()


def tools(db: Database, artifacts_uri: str) -> Tools:
    """What the services work with."""
    store = Store()
    return Tools(
        db=db,
        backend=FakeBackend(),
        store=store,
        tokens=RunTokens(b"bench"),
        locations=RunLocations(artifacts_uri=artifacts_uri, cache_uri=f"{artifacts_uri}/cache", ray_storage_uri="", report_address=""),
        candidates=Candidates(Planner(ShapeCache(store, db.clock), Policy())),
        up_since=db.clock.now(),
    )


def messages(folder: Path, size: int) -> list[pb.CreateBatchRequest]:
    """A batch as a platform sends it: each customer's own pictures, trigger, steps and label."""
    defaults = spec_pb2.TrainingSpec()
    defaults.base_model.uri = f"file://{folder}/base"
    defaults.adapter.rank = 8
    defaults.labels["run"] = "tonight"
    head = pb.BatchHeader(parent=PARENT, batch_id="bench", defaults=defaults)
    items = [item(folder, index) for index in range(size)]
    chunks = [items[start : start + ITEMS_PER_MESSAGE] for start in range(0, size, ITEMS_PER_MESSAGE)]
    return [pb.CreateBatchRequest(header=head), *(pb.CreateBatchRequest(items=pb.BatchItems(items=chunk)) for chunk in chunks)]


def item(folder: Path, index: int) -> pb.BatchItem:
    spec = spec_pb2.TrainingSpec()
    spec.dataset.uri = f"file://{folder}/data/style-{index:05d}"
    spec.dataset.trigger_phrase = f"style {index}"
    spec.training.max_steps = 200 + index % 100
    spec.training.seed = index
    spec.labels["customer"] = f"c{index}"
    return pb.BatchItem(spec=spec)


def read_snapshot(stub: Any, name: str) -> None:
    stream = stub.WatchBatch(pb.WatchBatchRequest(name=name))
    for event in stream:
        if not event.snapshot:
            break
    stream.cancel()


async def seconds(call: Callable[[], Any]) -> float:
    """How long a blocking call takes, made from a thread."""
    started_s = time.perf_counter()
    await asyncio.to_thread(call)
    return time.perf_counter() - started_s


async def longest_stall() -> float:
    """Until it is cancelled: the longest time by which a tick came late."""
    longest_s = 0.0
    while True:
        before_s = time.perf_counter()
        try:
            await asyncio.sleep(TICK_S)
        except asyncio.CancelledError:
            return longest_s
        longest_s = max(longest_s, time.perf_counter() - before_s - TICK_S)


def summary(timings: Mapping[int, Timing]) -> dict[str, float]:
    """`growth`: how many times longer ten times the items take; 10 is proportional, 100 would be quadratic."""
    largest = timings[10_000]
    return {
        **{f"accept_{size}_seconds": timing.accept_s for size, timing in timings.items()},
        "growth_1000_to_10000": largest.accept_s / timings[1_000].accept_s,
        "stall_10000_seconds": largest.stall_s,
        "get_10000_seconds": largest.get_s,
        "watch_snapshot_10000_seconds": largest.snapshot_s,
        "cancel_10000_seconds": largest.cancel_s,
        "rounds": ROUNDS,
    }


def draw(timings: Mapping[int, Timing]) -> None:
    """Seconds by items, beside what proportional and quadratic growth from 1,000 items on would be."""
    from matplotlib.figure import Figure

    sizes = list(timings)
    base_s = timings[1_000].accept_s
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(sizes, [timings[size].accept_s for size in sizes], "o-", label="accepted")
    axes.loglog(sizes, [base_s * size / 1_000 for size in sizes], "--", color="gray", label="proportional")
    axes.loglog(sizes, [base_s * (size / 1_000) ** 2 for size in sizes], ":", color="gray", label="quadratic")
    axes.set(xlabel="items", ylabel="seconds", title="CreateBatch: from the first message to the answer (SQLite)")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend()
    figure.savefig(results_file.RESULTS / "batches.png", dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
