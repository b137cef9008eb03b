"""`make chaos`: 3 replicas on PostgreSQL, a simulated backend, tenants, and hundreds of faults; then what the records say.

Everything drawn is drawn from SEED. What processes make of it depends on the machine too, so that a seed names a load and a
sequence of faults, not every interleaving. Writes bench/results/chaos.json; exits with 1 and the evidence on any violation.
"""

import argparse
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import results_file
from bench.chaos import checks, history, poison, registry, simulator
from bench.chaos.database import FleetDatabase, fleet_database
from bench.chaos.faults import Faults, sequence
from bench.chaos.fleet import Fleet, processes
from bench.chaos.load import Records, Tenant
from bench.chaos.poison import Poisoner
from bench.chaos.proxies import Proxies
from bench.chaos.replica import LEASE_S, ReplicaConfig
from bench.chaos.starving import Watch, starved, waits_s
from lorafleet import work
from lorafleet.states import label
from service.jobs import kinds
from service.settings.serve_options import CapacityOptions, TimeoutOptions
from service.settings.serve_settings import Settings
from tests.service.test_poisoned_bases import make_base

HEALTHY = ("acme", "globex", "initech")
MAX_RUNNING_JOBS = {"acme": 8, "globex": 5, "initech": 3, poison.TENANT: 2}  # by tenant
MAX_RUNNING_RUNS = 6
END_WITHIN_S = 180.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--faults", type=int, default=260, help="done to replicas, database, links and store; reports have their own")
    parser.add_argument("--seconds", type=float, default=300.0, help="over which they are spread, but for what is only watched")
    parser.add_argument("--no-ray", action="store_true", help="leave out the part with a real Ray")
    parser.add_argument("--keep", type=Path, help="a folder for logs and history; else a temporary one")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lorafleet-chaos-") as name:
        folder = (options.keep or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        findings, metrics = simulated(folder, options.seed, options.faults, options.seconds)
        if not options.no_ray:
            from bench.chaos import real_ray

            ray_findings, ray_metrics = real_ray.run(folder / "ray", options.seed)
            findings.lost += ray_findings.lost
            findings.doubled += ray_findings.doubled
            findings.orphans += ray_findings.orphans
            metrics |= ray_metrics
            metrics["faults"] += sum(value for key, value in ray_metrics.items() if key.startswith("faults_"))
    counts = {kind: len(getattr(findings, kind)) for kind in checks.KINDS}
    results_file.write("chaos", {**metrics, **counts, "seed": options.seed, "duration_s": round(time.monotonic() - started, 1)})
    for told in findings.all:
        print(told, file=sys.stderr)
    return 1 if findings.all else 0


def simulated(folder: Path, seed: int, num_faults: int, seconds: float) -> tuple[checks.Findings, dict[str, Any]]:
    """The part with the simulated backend."""
    make_inputs(folder)
    context = processes()
    ports = free_ports(10)
    backend_port, backend_link, database_link, control, *apis = ports
    addresses = [f"127.0.0.1:{port}" for port in apis[3:]]
    with fleet_database() as database:
        proxies = Proxies(control, folder / "toxiproxy.log")
        proxies.link("database", database_link, database.server.port)
        proxies.link("backend", backend_link, backend_port)
        for place in range(3):
            proxies.link(f"api-{place}", apis[3 + place], apis[place])
        path = folder / "history.jsonl"
        backend = context.Process(target=simulator.main, args=(backend_port, addresses, path, seed), daemon=True)
        backend.start()
        database_url = database.behind(database_link)
        configs = [fleet_config(folder, place, apis[place], database_url, backend_link, clock_is_set=True) for place in range(3)]
        fleet = Fleet(folder, configs, context)
        try:
            database.add_clock()
            fleet.start()
            database.limit_running_jobs(MAX_RUNNING_JOBS)
            return _run(fleet, database, proxies, addresses, path, folder, seed, num_faults, seconds)
        finally:
            fleet.stop()
            backend.kill()
            proxies.close()


def _run(
    fleet: Fleet,
    database: FleetDatabase,
    proxies: Proxies,
    addresses: list[str],
    path: Path,
    folder: Path,
    seed: int,
    num: int,
    seconds: float,
) -> tuple[checks.Findings, dict[str, Any]]:
    records, over = Records(), threading.Event()
    target = "ipv4:" + ",".join(addresses)
    tenants = [Tenant(tenant, target, str(folder), records, seed, over) for tenant in HEALTHY]
    for tenant in tenants:
        tenant.start()
    watch = Watch(database, MAX_RUNNING_RUNS, MAX_RUNNING_JOBS, frozenset(HEALTHY))
    faults = Faults(fleet, database, proxies, Poisoner(target, folder, database, records, seed), watch, seed)
    _spread(sequence(num, seed), seconds, faults)
    faults.settle()
    over.set()
    for tenant in tenants:
        if not tenant.join_callers(120):
            records.errors.append("a tenant's calls did not end within 120 s after the last fault")
    _until(lambda: _all_ended(database), END_WITHIN_S)
    _until(lambda: not _alive(path), 60)
    _until(lambda: _caught_up(records, database), 30)
    for tenant in tenants:
        tenant.stop_watching()
    lives = history.lives(history.read(path))
    findings = checks.check(records, _stored(database), lives, max_hosts=MAX_RUNNING_RUNS, max_running=MAX_RUNNING_JOBS)
    findings.errors += faults.errors
    shelves, states = registry.read(database), _stored(database).states
    findings.lost += registry.lost(shelves, states, records.moves)
    findings.doubled += registry.doubled(shelves, states)
    waited_s = waits_s(watch.calms)
    findings.starved += starved(waited_s)
    return findings, {
        **_metrics(faults, fleet, lives, records),
        "adapter_versions": len(shelves.versions),
        "alias_moves": sum(map(len, shelves.moves.values())),
        "longest_wait_beside_poison_s": round(max(waited_s.values(), default=0.0), 2),
    }


def _spread(kinds: Any, seconds: float, faults: Faults) -> None:
    """Evenly over the time, but for that in which poison is watched alone; another fault that takes long is made up for."""
    all_kinds = list(kinds)
    begin = time.monotonic()
    for place, kind in enumerate(all_kinds):
        time.sleep(max(0.0, begin + faults.calm_s + seconds * place / len(all_kinds) - time.monotonic()))
        faults.do(kind)


def _metrics(faults: Faults, fleet: Fleet, lives: history.Lives, records: Records) -> dict[str, Any]:
    by_kind: Counter[str] = Counter(faults.done) + Counter(fleet.fired) + Counter(lives.faults)
    return {
        "faults": sum(by_kind.values()),
        **{f"faults_{kind}": count for kind, count in sorted(by_kind.items())},
        "jobs": len(records.accepted),
        "runs": len(lives.hosts),
        "most_runs_at_once": history.most_at_once(lives.hosts),
        **{f"most_jobs_at_once_{tenant}": _most_jobs(lives, tenant) for tenant in MAX_RUNNING_JOBS},
        "late_launches_refused": lives.num_refused,
        "events_watched": sum(len(seen) for seen in records.seen.values()),
        "replica_starts": sum(replica.starts for replica in fleet.replicas),
    }


def _most_jobs(lives: history.Lives, tenant: str) -> int:
    return history.most_at_once([stay for stay in lives.work if stay.job.startswith(f"tenants/{tenant}/")])


def _all_ended(database: FleetDatabase) -> bool:
    return database.rows("SELECT count(*) FROM jobs WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")[0][0] == 0


def _alive(path: Path) -> set[str]:
    return history.lives(history.read(path)).alive


def _caught_up(records: Records, database: FleetDatabase) -> bool:
    """Whether every watcher has seen the newest version of all that is its tenant's."""
    versions = _stored(database).versions
    for watcher, seen in list(records.seen.items()):
        last = {job: version for job, version, _ in list(seen)}
        own = {job: version for job, version in versions.items() if job.startswith(f"tenants/{watcher.rpartition('-')[0]}/")}
        if any(last.get(job) != version for job, version in own.items()):
            return False
    return True


def _stored(database: FleetDatabase) -> checks.Stored:
    jobs = database.rows("SELECT uid, tenant, job_id, state, version, reason FROM jobs")
    names = {uid: work.name_of(tenant, job_id) for uid, tenant, job_id, *_ in jobs}
    events: dict[str, list[tuple[int, str]]] = {}
    kinds_of = dict(database.rows("SELECT uid, kind FROM jobs"))
    for uid, version, payload in database.rows("SELECT job_uid, version, payload FROM job_events ORDER BY seq"):
        state = label(kinds.of(kinds_of[uid]).read(bytes(payload)))
        events.setdefault(names[uid], []).append((version, state))
    hosts = database.rows("SELECT DISTINCT host_id FROM runs WHERE state <> 'GONE'")
    return checks.Stored(
        events=events,
        versions={names[uid]: version for uid, _, _, _, version, _ in jobs},
        states={names[uid]: state for uid, _, _, state, *_ in jobs},
        reasons={names[uid]: reason for uid, *_, reason in jobs},
        living_hosts=frozenset(host for (host,) in hosts),
    )


def fleet_config(
    folder: Path,
    place: int,
    port: int,
    database_url: str,
    backend_port: int,
    *,
    lease_s: float | None = LEASE_S,
    clock_is_set: bool = False,
) -> ReplicaConfig:
    artifacts = f"file://{folder}/store"
    settings = Settings(
        host="127.0.0.1",
        port=port,
        state_dir=folder / f"replica-{place}",
        artifacts_uri=artifacts,
        cache_uri=f"{artifacts}/cache",
        ray_address="http://unused.invalid",
        capacity=CapacityOptions(max_running_runs=MAX_RUNNING_RUNS, max_pack_size=4),
        timeouts=TimeoutOptions(warm_idle_s=3.0, grace_period_s=4.0, heartbeat_timeout_s=10.0, start_timeout_s=20.0),
    )
    return ReplicaConfig(
        name=f"replica-{place}",
        folder=folder,
        settings=settings,
        database_url=database_url,
        backend_port=backend_port,
        lease_s=lease_s,
        clock_is_set=clock_is_set,
    )


def make_inputs(folder: Path) -> None:
    if not (folder / "base").exists():
        make_base(folder / "base")
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / "a.png").write_bytes(b"png")


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """False when the time is over: the checks say then what is missing."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
