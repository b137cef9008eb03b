"""The short part with a real Ray: `lorafleet serve` as it is, its local Ray, and stand-ins for the trainer's driver.

The server is killed at several joints, drivers too; the same questions are asked of the database and of Ray's processes.
"""

import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from bench.chaos.checks import Findings, num_ends
from lorafleet.v1 import training_service_pb2 as pb
from tests.service.integration.test_local_ray import Fleet

JOBS = 6


class Tried:
    """The fleet, and the faults that were done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self.fleet = Fleet(folder, "--max-pack-size", "1")
        self.draw = random.Random(f"{seed}/ray")
        self.faults: Counter[str] = Counter()
        self.names: list[str] = []
        self.most_drivers = 0

    def submit(self) -> str:
        name = self.fleet.submit(f"job-{len(self.names)}")
        self.names.append(name)
        return name

    def kill_server(self) -> None:
        if self.fleet.served is not None:
            self.fleet.served.kill()
        self.faults["faults_ray_server_kill"] += 1
        self.fleet.start()

    def kill_driver(self, name: str) -> None:
        for driver in self.drivers(name):
            driver.kill()
        self.faults["faults_ray_driver_kill"] += 1

    def drivers(self, name: str) -> list[Any]:
        found = self.fleet.drivers(self.fleet.job(name))
        self.most_drivers = max(self.most_drivers, len(found))
        return found

    def attempts(self, name: str) -> int:
        return len(self.fleet.job(name).attempts)


def run(folder: Path, seed: int) -> tuple[Findings, dict[str, Any]]:
    """What the databases and the process table say after it."""
    tried = Tried(folder, seed)
    tried.fleet.start()
    try:
        _drive(tried)
        for name in tried.names:
            tried.fleet.until(name, "SUCCEEDED", attempts=tried.attempts(name))
        return _check(tried), {**tried.faults, "ray_jobs": len(tried.names)}
    finally:
        tried.fleet.stop()


def _drive(tried: Tried) -> None:
    """Six jobs in pairs, as many as may run at once; servers die between accept and launch, while runs start and while they train."""
    for pair in range(JOBS // 2):
        first = tried.submit()
        tried.kill_server()  # accepted, and perhaps admitted
        second = tried.submit()
        tried.fleet.until(first, "RUNNING")
        tried.kill_server()
        tried.fleet.until(second, "RUNNING")
        victim = tried.draw.choice([first, second])
        tried.kill_driver(victim)
        tried.kill_server()
        tried.fleet.until(victim, "RUNNING", attempts=2)
        for name in (first, second):
            tried.drivers(name)
            tried.fleet.let_end(name.rpartition("/")[2])
        if pair == 0:
            tried.kill_server()  # while they end
        for name in (first, second):
            tried.fleet.until(name, "SUCCEEDED", attempts=tried.attempts(name))


def _check(tried: Tried) -> Findings:
    found = Findings()
    if tried.most_drivers > 1:
        found.doubled.append(f"Ray had {tried.most_drivers} drivers of one attempt at once")
    states: dict[str, list[str]] = {}
    with sqlite3.connect(tried.fleet.state_dir / "lorafleet.db") as connection:
        for (payload,) in connection.execute("SELECT payload FROM job_events ORDER BY seq"):
            job = pb.TrainingJob.FromString(payload)
            states.setdefault(job.name, []).append(pb.JobState.Name(job.state).removeprefix("JOB_STATE_"))
    for name in tried.names:
        ends = num_ends(states.get(name, []))
        if ends != 1:
            (found.lost if ends == 0 else found.doubled).append(f"{name} on Ray ended {ends} times: {states.get(name)}")
        if tried.drivers(name):
            found.orphans.append(f"a driver of {name} lives on")
    return found
