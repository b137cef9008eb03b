"""The simulated backend's own record: append-only, one JSON object a line, in the order in which things happened there.

The control plane never sees it. What the checks say of attempts, quotas and artifacts they say from here.
"""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class History:
    """Written by one process, the simulator."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def note(self, what: str, **fields: Any) -> None:
        self._file.write(json.dumps({"t": time.monotonic(), "what": what, **fields}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All of it, oldest first; a last line that is still being written is left out."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A job's time in a run, from the first report that was taken to the run's end. Open while the run lives."""

    job: str
    run: str
    begin: float
    end: float = float("inf")


@dataclass
class Lives:
    """What a history says: when jobs were in runs, and when backend jobs were at work."""

    stays: list[Stay] = field(default_factory=list)
    work: list[Stay] = field(default_factory=list)  # the part of each stay until the style ended
    hosts: list[Stay] = field(default_factory=list)  # `job` is empty
    commits: dict[str, list[str]] = field(default_factory=dict)  # runs that committed an artifact, by job
    alive: set[str] = field(default_factory=set)
    faults: dict[str, int] = field(default_factory=dict)
    num_refused: int = 0  # processes that were refused at their first report: launched late


def lives(records: list[dict[str, Any]]) -> Lives:
    """Reads a history. Pure."""
    found = Lives()
    in_run: dict[str, dict[str, float]] = {}  # begin of each job, by run
    left: dict[str, dict[str, float]] = {}  # end of each job's work, by run
    at_work: dict[str, float] = {}  # begin, by host
    for record in records:
        at = float(record["t"])
        match record["what"]:
            case "launched":
                found.alive.add(record["host"])
            case "began":
                at_work.setdefault(record["host"], at)
                in_run.setdefault(record["run"], {}).update(dict.fromkeys(record["jobs"], at))
            case "committed":
                found.commits.setdefault(record["job"], []).append(record["run"])
            case "left":
                since = in_run.get(record["run"], dict[str, float]()).get(record["job"]) or at
                left.setdefault(record["run"], {})[record["job"]] = at
                found.work.append(Stay(job=record["job"], run=record["run"], begin=since, end=at))
            case "run_over":
                in_it = in_run.pop(record["run"], {})
                found.stays += _closed(record["run"], in_it, at)
                found.work += _closed(record["run"], _without(in_it, left.pop(record["run"], {})), at)
            case "ended":
                found.alive.discard(record["host"])
                if (begin := at_work.pop(record["host"], None)) is not None:
                    found.hosts.append(Stay(job="", run=record["host"], begin=begin, end=at))
                else:
                    found.num_refused += 1
            case "fault":
                found.faults[record["kind"]] = found.faults.get(record["kind"], 0) + 1
            case _:
                continue
    for run, jobs in in_run.items():
        found.stays += _closed(run, jobs, float("inf"))
        found.work += _closed(run, _without(jobs, left.get(run, {})), float("inf"))
    found.hosts += [Stay(job="", run=host, begin=begin) for host, begin in at_work.items()]
    return found


def _without(jobs: dict[str, float], gone: dict[str, float]) -> dict[str, float]:
    return {job: begin for job, begin in jobs.items() if job not in gone}


def _closed(run: str, jobs: dict[str, float], end: float) -> Iterator[Stay]:
    return (Stay(job=job, run=run, begin=begin, end=end) for job, begin in jobs.items())


def overlaps(stays: list[Stay]) -> list[tuple[Stay, Stay]]:
    """Two runs that had the same job at the same time."""
    by_job: dict[str, list[Stay]] = {}
    for stay in stays:
        by_job.setdefault(stay.job, []).append(stay)
    found: list[tuple[Stay, Stay]] = []
    for own in by_job.values():
        own.sort(key=lambda stay: stay.begin)
        found += [(first, second) for first, second in itertools.pairwise(own) if second.begin < first.end and first.run != second.run]
    return found


def most_at_once(stays: list[Stay]) -> int:
    """The largest number of them at any moment; one that ends makes room before another begins."""
    steps = sorted([(stay.begin, 1) for stay in stays] + [(stay.end, -1) for stay in stays])
    now = most = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
