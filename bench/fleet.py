"""A lorafleet of its own for a bench: a server with its local Ray up, batches trained on it, and what they took.

Every style has a small data set of its own. Knows nothing of the peer and of what is compared.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from examples.demo import BASE_MODEL, PICTURES
from examples.processes import Servers
from examples.restyle import STYLES, restyle
from examples.serving import serve, wait_for_ray
from lorafleet.client import Client
from lorafleet.states import label
from lorafleet.v1 import training_service_pb2 as pb

RANK, LEARNING_RATE, SEED, CPUS = 16, 1e-3, 0, 2.0
EVERY = 16  # a style has every so many-th of the 256 pictures: 16
SETTLE_S = 15  # the dashboard and the prestarted workers of Ray still come up when its port already answers
LOG_S = 60  # the last lines of a run's log are copied after its jobs have ended
POLL_S = 1.0

_PEAK_MEMORY = re.compile(r"peak memory (\d+) MiB")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A batch, or a lone job, that has ended well."""

    jobs: Sequence[pb.TrainingJob]  # in the order of the items
    wall_seconds: float  # from submit to the last committed artifact
    pictures_per_second: float  # in the loop, all styles together

    @property
    def first_step_seconds(self) -> float:
        """From submit to the moment when every style has trained a step."""
        return max(_time(job.first_step_time) - _time(job.create_time) for job in self.jobs)


class Fleet:
    """A control plane and its Ray. Each measurement encodes its pictures anew."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self._folder = folder
        self._number = 0

    def train(self, data_sets: Sequence[Path], *, num_steps: int, batch_size: int = 1) -> Trained:
        """Submit a batch, a style for each data set, and wait for its end. Raises RuntimeError unless all train well, in one run."""
        self._number += 1
        self._clear_cache()
        items = [{"dataset": {"uri": folder.as_uri()}} for folder in data_sets]
        started_s = time.monotonic()
        batch = self.client.create_batch(defaults(num_steps, batch_size), items, batch_id=f"bench-{self._number}")
        jobs, rates = dict[str, pb.TrainingJob](), dict[str, float]()
        for job in self.client.watch_batch(batch.name):
            jobs[job.name] = job
            rates[job.name] = job.progress.pictures_per_second or rates.get(job.name, 0.0)
        wall_seconds = time.monotonic() - started_s
        ended = sorted(jobs.values(), key=lambda job: job.batch_index)
        check(ended)
        return Trained(jobs=ended, wall_seconds=wall_seconds, pictures_per_second=sum(rates.values()))

    def peak_memory_mib(self, job: str) -> float:
        """Of the worker that trained the job, as it logged it at its end. Raises TimeoutError where it did not."""
        deadline = time.monotonic() + LOG_S
        while not (found := peak_memory_mib("".join(piece.text for piece in self.client.logs(job)))):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job}: its log has no line `peak memory … MiB`")
            time.sleep(POLL_S)
        return found

    def data_sets(self, num_styles: int, first: int = 0) -> list[Path]:
        """One for each style."""
        return [self.data_set(number) for number in range(first, first + num_styles)]

    def data_set(self, number: int, every: int = EVERY) -> Path:
        """Every so many-th picture in one style. No two numbers below 48 have the same pictures in the same style."""
        folder = self._folder / "data" / f"{number}-{every}"
        if not folder.is_dir():
            restyle(list(STYLES)[number % len(STYLES)], PICTURES, folder, which=slice(number % every, None, every))
        return folder

    def _clear_cache(self) -> None:
        shutil.rmtree(self._folder / "cache", ignore_errors=True)


@contextmanager
def fleet(folder: Path, *options: str) -> Iterator[Fleet]:
    """Serve with the options, Ray up, and no workers that stand by unless they say so; nothing is left behind but `folder`."""
    folder.mkdir(parents=True)
    with Servers(log_dir=folder) as servers:
        address = serve(servers, folder, "--cache", (folder / "cache").as_uri(), "--standby-workers", "0", *options)
        wait_for_ray(folder)
        time.sleep(SETTLE_S)
        with Client(address) as client:
            yield Fleet(client, folder)


@contextmanager
def workplace(kept: Path | None) -> Iterator[Path]:
    """A folder to work in: `kept` with all logs and artifacts, or one that is deleted."""
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-") as name:
        yield Path(name)


def defaults(num_steps: int, batch_size: int) -> dict[str, Any]:
    """What all styles have in common. The modules are the default ones, which are the peer's too; no pictures are drawn."""
    return {
        "base_model": {"uri": BASE_MODEL.as_uri()},
        "dataset": {"validation_fraction": 0.0},
        "adapter": {"rank": RANK},
        "training": {
            "max_steps": num_steps,
            "micro_batch_size": batch_size,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler": "constant",
            "seed": SEED,
        },
        "cluster": {"cpus_per_worker": CPUS},
        "checkpointing": {"every_steps": num_steps},
    }


def check(jobs: Sequence[pb.TrainingJob]) -> None:
    """Raises RuntimeError where a job has failed or was tried again, or where they were not all in one run."""
    failed = [f"{job.name}: {label(job)} {job.reason} {job.message}" for job in jobs if job.state != pb.JOB_STATE_SUCCEEDED]
    if failed:
        raise RuntimeError("not every style has trained:\n  " + "\n  ".join(failed))
    runs = {attempt.run for job in jobs for attempt in job.attempts}
    if len(runs) != 1:
        raise RuntimeError(f"the styles were to train in one run, and had {len(runs)}: {', '.join(sorted(runs))}")


def peak_memory_mib(log: str) -> float | None:
    """What the newest run in the log has said of its memory; None when it has said nothing."""
    found: list[str] = _PEAK_MEMORY.findall(log)
    return float(found[-1]) if found else None


def _time(stamp: Any) -> float:
    return stamp.ToDatetime(tzinfo=UTC).timestamp()
