"""Adds up demand and capacity: GPUs, CPUs and runs. Knows nothing of jobs and tenants."""

import math
from dataclasses import dataclass
from typing import Protocol

EPSILON = 1e-9  # fractions of a GPU are sums of floats


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each. What is unlimited is infinite."""

    gpus: float = 0.0
    cpus: float = 0.0
    runs: float = 0.0

    def plus(self, other: "Resources") -> "Resources":
        return Resources(self.gpus + other.gpus, self.cpus + other.cpus, self.runs + other.runs)

    def minus(self, other: "Resources") -> "Resources":
        """May be negative: a capacity that was made smaller is overdrawn for a while."""
        return Resources(_less(self.gpus, other.gpus), _less(self.cpus, other.cpus), _less(self.runs, other.runs))

    def least(self, other: "Resources") -> "Resources":
        """The smaller amount of each."""
        return Resources(min(self.gpus, other.gpus), min(self.cpus, other.cpus), min(self.runs, other.runs))

    def fits(self, room: "Resources") -> bool:
        """Whether there is enough of each in `room`."""
        return self.gpus <= room.gpus + EPSILON and self.cpus <= room.cpus + EPSILON and self.runs <= room.runs + EPSILON

    def helps(self, missing: "Resources") -> bool:
        """Whether it has some of something that is `missing`."""
        pairs = ((self.gpus, missing.gpus), (self.cpus, missing.cpus), (self.runs, missing.runs))
        return any(own > 0 and wanted > EPSILON for own, wanted in pairs)

    def times_in(self, room: "Resources") -> int:
        """How often it fits into `room`, one beside the other."""
        pairs = ((room.gpus, self.gpus), (room.cpus, self.cpus), (room.runs, self.runs))
        counts = [(has + EPSILON) / wants for has, wants in pairs if wants > 0 and not math.isinf(has)]
        return max(0, int(min(counts, default=2**31)))

    def dominant_share(self, capacity: "Resources") -> float:
        """The largest of its parts of the capacity (Ghodsi et al., NSDI 2011); what is unlimited has no part."""
        pairs = ((self.gpus, capacity.gpus), (self.cpus, capacity.cpus), (self.runs, capacity.runs))
        return max((own / whole for own, whole in pairs if own > 0 and whole > 0), default=0.0)


NOTHING = Resources()


def _less(amount: float, other: float) -> float:
    return amount if math.isinf(amount) else amount - other


def amount(gpus: float, cpus: float) -> str:
    """`2 GPUs and 4 CPUs`, for people."""
    parts = [
        f"{value:g} {name}{'' if value == 1 else 's'}" for value, name in ((gpus, "GPU"), (cpus, "CPU")) if value and not math.isinf(value)
    ]
    return " and ".join(parts) or "no GPU"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """All that runs can ever have in a place whose size is fixed."""

    gpus: float
    cpus: float
    memory_bytes: float


class Workers(Protocol):
    """What a run asks for."""

    @property
    def num_workers(self) -> int: ...
    @property
    def cpus_per_worker(self) -> float: ...
    @property
    def gpus_per_worker(self) -> float: ...
    @property
    def memory_gib_per_worker(self) -> float | None: ...


def beyond(workers: Workers, hardware: Hardware) -> str:
    """What these workers ask for and could never have there, for people; empty: they fit."""
    asked = (
        ("GPUs", workers.gpus_per_worker, hardware.gpus),
        ("CPUs", workers.cpus_per_worker, hardware.cpus),
        ("GiB of memory", workers.memory_gib_per_worker or 0.0, hardware.memory_bytes / 2**30),
    )
    missing = [
        f"{workers.num_workers * each:g} {name}, and there are {has:.4g}"
        for name, each, has in asked
        if workers.num_workers * each > has + EPSILON
    ]
    if not missing:
        return ""
    return f"cluster: asks for {'; for '.join(missing)} in all where runs execute; ask for less, or serve on a larger machine"
