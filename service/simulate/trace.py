"""Reads loads to simulate from CSV or JSONL, or makes them. Knows nothing of how they are scheduled."""

import csv
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet.errors import InvalidInput, Violation

NEEDED = ("submit_s", "tenant", "gpus", "duration_s")
HOUR_S = 3600.0
_SIZES = ((1, 60), (2, 20), (4, 12), (8, 6), (16, 2))  # GPUs per job, and the percentage of such jobs
_CLASSES = ((-10, 15), (0, 75), (60, 10))  # priority likewise


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceJob:
    """A job of a load. `duration_s` is how long it trains; `max_run_time_s` what its spec says, which the scheduler knows."""

    uid: str
    submit_s: float
    tenant: str
    gpus: float
    duration_s: float
    cpus: float = 1.0
    priority: int = 0
    preemptible: bool = True
    max_run_time_s: float = math.inf


def read(path: Path) -> list[TraceJob]:
    """The jobs of a .csv or .jsonl file, by time. Raises InvalidInput with the first lines that make no sense."""
    jobs: list[TraceJob] = []
    wrong: list[Violation] = []
    for number, row in _rows(path):
        try:
            jobs.append(_job(number, row))
        except (KeyError, TypeError, ValueError) as error:
            wrong.append(Violation(field=f"{path.name}:{number}", message=f"{type(error).__name__}: {error}; needed: {', '.join(NEEDED)}"))
    if wrong:
        message = "\n".join(["the trace cannot be read", *(f"  {violation}" for violation in wrong[:10])])
        raise InvalidInput(message, violations=wrong[:10], reason="INVALID_TRACE")
    if not jobs:
        raise InvalidInput(f"{path} holds no jobs", reason="INVALID_TRACE")
    return sorted(jobs, key=lambda job: (job.submit_s, job.uid))


def made(num_jobs: int, seed: int, gpus: float, *, load: float = 0.9, num_tenants: int = 20) -> list[TraceJob]:
    """A busy platform's load: a few large tenants and many small ones, days and nights, bursts of a hundred styles at once.

    `load` is the part of the GPUs that would be at work if no job ever waited.
    """
    draw = random.Random(seed)
    tenants = [f"tenant-{number:02d}" for number in range(num_tenants)]
    sizes = _drawn(draw, _SIZES, num_jobs)
    priorities = _drawn(draw, _CLASSES, num_jobs)
    durations = [min(24 * HOUR_S, max(60.0, draw.lognormvariate(math.log(20 * 60), 1.1))) for _ in range(num_jobs)]
    span_s = sum(size * duration for size, duration in zip(sizes, durations, strict=True)) / (gpus * load)
    submits = _submits(draw, num_jobs, span_s)
    owners = _owners(draw, tenants, num_jobs)
    return [
        TraceJob(
            uid=f"job-{number:06d}",
            submit_s=submits[number],
            tenant=owners[number],
            gpus=sizes[number],
            cpus=4.0 * sizes[number],
            duration_s=durations[number],
            priority=priorities[number],
            preemptible=draw.random() < 0.9,
            max_run_time_s=durations[number] * draw.uniform(1.1, 3.0) if draw.random() < 0.5 else math.inf,
        )
        for number in range(num_jobs)
    ]


def _submits(draw: random.Random, num_jobs: int, span_s: float) -> list[float]:
    """More by day than by night."""
    times: list[float] = []
    while len(times) < num_jobs:
        time_s = draw.uniform(0, span_s)
        by_day = 1 + 0.6 * math.sin(2 * math.pi * time_s / (24 * HOUR_S))
        if draw.random() * 1.6 < by_day:
            times.append(time_s)
    return sorted(times)


def _owners(draw: random.Random, tenants: list[str], num_jobs: int) -> list[str]:
    """The k-th tenant submits 1/k as much as the first; one in fifty jobs begins a burst of a hundred of its tenant."""
    weights = [1 / rank for rank in range(1, len(tenants) + 1)]
    owners: list[str] = []
    while len(owners) < num_jobs:
        owners += draw.choices(tenants, weights) * (100 if draw.random() < 0.0002 * 100 / 50 else 1)
    return owners[:num_jobs]


def _drawn(draw: random.Random, of_a_hundred: Iterable[tuple[int, int]], num: int) -> list[int]:
    values, weights = zip(*of_a_hundred, strict=True)
    return draw.choices(values, weights, k=num)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="") as file:
        if path.suffix == ".jsonl":
            yield from ((number, json.loads(line)) for number, line in enumerate(file, start=1) if line.strip())
        else:
            yield from enumerate(csv.DictReader(file), start=2)


def _job(number: int, row: Mapping[str, Any]) -> TraceJob:
    given = {name: value for name, value in row.items() if value not in {None, ""}}
    job = TraceJob(
        uid=str(given.get("uid", f"job-{number:06d}")),
        submit_s=float(given["submit_s"]),
        tenant=str(given["tenant"]),
        gpus=float(given["gpus"]),
        duration_s=float(given["duration_s"]),
        cpus=float(given.get("cpus", 1.0)),
        priority=int(given.get("priority", 0)),
        preemptible=str(given.get("preemptible", "true")).lower() in {"true", "1", "yes"},
        max_run_time_s=float(given.get("max_run_time_s", math.inf)),
    )
    if min(job.gpus, job.cpus, job.submit_s) < 0 or not 0 < job.duration_s < math.inf:
        raise ValueError("an amount or a time is negative, or duration_s is no time")
    return job
