"""`make bench-registry`: whether pages and filters of adapters cost the same among many as among few, and how long an alias' move takes.

On a durable PostgreSQL and on SQLite: a tenant with 10,000 adapters of 5 versions each, and one with 100. Calls go to the service's own
functions, without gRPC, which costs the same for either. A filter finds a page of 50 adapters of either tenant, and no more, but for those
called `tenth`, which find a tenth of either and are asked for ten. Pages of the two tenants are asked for by turns.
Writes bench/results/registry.json.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import insert

from bench import results_file
from bench.service import analyze, database
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity, Role
from service.api.lists.adapters import list_adapters
from service.core.clock import SystemClock
from service.core.concurrency import slices
from service.core.resource_names import AdapterName, AliasName
from service.db import migrate
from service.db.database import Database
from service.db.engines import sqlite_url
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.db.retrying import again
from service.registry.aliases import AliasMove, set_alias
from tests.postgres import postgres_server

MANY, FEW, VERSIONS = 10_000, 100, 5
FOUND = 50  # by each filter, of either tenant: a page
FOUND_OF_TENTH = 10
ROUNDS = 40
MOVES, MOVERS = 1_000, (1, 16)
ASKED = {  # filter, order
    "page": ("", ""),
    "oldest": ("", "create_time"),
    "name": ("", "name"),
    "label": ('labels.customer = "c7"', ""),
    "base_digest": ('base_digest = "base-7"', ""),
    "family": ("family = flux", ""),
    "method": ("method = oft", ""),
    "trigger": ('trigger = "sks 7"', ""),
    "quality": ("quality.held_out_loss < 0.05", ""),
    "label_and_family": ('labels.customer = "c7" AND family = flux', "name"),
    "tenth_label": ('labels.team = "t3"', ""),
    "tenth_quality": ("quality.clip > 0.9", ""),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of the larger tenant and of the moves: less for a quick look")
    scale = parser.parse_args().scale
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name, postgres_server(fast=False) as server:
        for kind, url in (("postgresql", server.create("registry")), ("sqlite", sqlite_url(Path(name) / "registry.db"))):
            migrate.upgrade(url)
            found |= {f"{key}_{kind}": value for key, value in asyncio.run(measured(url, scale)).items()}
    for kind in ("postgresql", "sqlite"):
        ratios = {key: value for key, value in found.items() if key.endswith(f"_10k_over_100_{kind}")}
        found[f"worst_10k_over_100_{kind}"] = max(ratios.values())
    results_file.write("registry", found)
    return 0


async def measured(url: str, scale: float) -> dict[str, float]:
    """Pages of both tenants, and moves of aliases in the larger one."""
    async with database(url, SystemClock()) as db:
        await fill(db, "many", int(MANY * scale))
        await fill(db, "few", FEW)
        analyze(url)
        found: dict[str, float] = {}
        for name, (filter, order) in ASKED.items():
            many_s, few_s = await pages_s(db, filter, order, FOUND_OF_TENTH if name.startswith("tenth") else FOUND)
            found |= {f"{name}_10k_over_100": many_s / few_s, f"{name}_ms": 1000 * many_s}
        for movers in MOVERS:
            found |= await moves(db, int(MANY * scale), int(MOVES * scale), movers)
        return found


async def pages_s(db: Database, filter: str, order: str, size: int) -> tuple[float, float]:
    """Medians of a page of the larger tenant and of the smaller."""
    took_s: dict[str, list[float]] = {"many": [], "few": []}
    for _ in range(ROUNDS):
        for tenant, times in took_s.items():
            request = pb.ListAdaptersRequest(parent=f"tenants/{tenant}", page_size=size, filter=filter, order_by=order)
            started_s = time.perf_counter()
            page = await list_adapters(db, request)
            times.append(time.perf_counter() - started_s)
            if len(page.adapters) != size:
                raise RuntimeError(f"a page of {tenant} by {filter!r} has {len(page.adapters)} adapters")
    return statistics.median(took_s["many"]), statistics.median(took_s["few"])


async def moves(db: Database, num_adapters: int, num_moves: int, movers: int) -> dict[str, float]:
    """Moves of `production` by so many callers at once, each of another adapter."""
    caller = Identity(principal="bench", tenant="many", role=Role.OPERATOR)
    took_s: list[float] = []

    async def mover(place: int) -> None:
        for number in range(place, num_moves, movers):
            name = AliasName(AdapterName("many", f"a-{number * 37 % num_adapters}"), "production")
            started_s = time.perf_counter()
            await again(partial(set_alias, db, AliasMove(name=name, number=(number + movers) % VERSIONS + 1), caller))
            took_s.append(time.perf_counter() - started_s)

    await asyncio.gather(*map(mover, range(movers)))
    took_s.sort()
    half, most = took_s[len(took_s) // 2], took_s[int(len(took_s) * 0.99)]
    return {f"alias_move_p50_ms_{movers}_at_once": 1000 * half, f"alias_move_p99_ms_{movers}_at_once": 1000 * most}


async def fill(db: Database, tenant: str, number: int) -> None:
    """That many adapters, a second apart; what filters find lies among them at equal distances."""
    now = db.clock.now()
    every = number // FOUND
    for some in slices(range(number), 1000):
        async with db.transaction() as tx:
            rows = [_adapter(tenant, index, every, now - timedelta(seconds=number - index)) for index in some]
            await tx.session.execute(insert(AdapterRow), rows)
            await tx.session.execute(insert(AdapterVersionRow), [version for row in rows for version in _versions(row)])


def _adapter(tenant: str, index: int, every: int, at: Any) -> dict[str, Any]:
    is_found = index % every == every // 2
    customer = "7" if is_found else f"other-{index % 997}"
    return {
        "uid": uuid4().hex, "tenant": tenant, "adapter_id": f"a-{index}", "last_number": VERSIONS, "newest_version": VERSIONS,
        "family": "flux" if is_found else "sd1", "method": "oft" if is_found else "lora", "rank": 16,
        "trigger": f"sks {customer}", "base_digest": f"base-{customer}", "labels": {"customer": f"c{customer}", "team": f"t{index % 10}"},
        "quality": {"held_out_loss": 0.01 if is_found else 0.1 + index % 89 / 100, "clip": 0.95 if index % 10 == 4 else 0.5},
        "keep_newest": 0, "keep_days": 0, "create_time": at, "update_time": at, "version": 1,
    }  # fmt: skip


def _versions(adapter: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = ("tenant", "adapter_id", "family", "method", "rank", "trigger", "base_digest", "labels", "quality", "create_time")
    for number in range(1, VERSIONS + 1):
        folder = f"file:///artifacts/{adapter['adapter_id']}/{number}"
        place = {"root_uri": folder, "artifact_uri": f"{folder}/adapter", "manifest_sha256": "ab" * 32, "size_bytes": 10_000_000}
        own = {"uid": uuid4().hex, "adapter_uid": adapter["uid"], "number": number, "state": "READY"}
        yield {**{name: adapter[name] for name in names}, **place, **own}


if __name__ == "__main__":
    raise SystemExit(main())
