"""Workers that stand by, as a bench sees them: whether they are up, and what they hold. Knows nothing of what is compared."""

import time
from pathlib import Path

import psutil

from service.backends import ray_head

READY_S = 300.0
_STANDS_BY = "stands by; its workers wait"  # as the server logs it
_PARTS = ("trainer.run", "TrainController", "RayTrainWorker")  # driver, controller and worker of a run


class Standby:
    """Of one server with its local Ray, its files under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_seen = 0

    def wait(self) -> None:
        """Until a group is up that was not there at the last wait. Raises TimeoutError."""
        deadline = time.monotonic() + READY_S
        while (num := (self._folder / "server.log").read_text().count(_STANDS_BY)) <= self._num_seen:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no workers stand by after {READY_S:.0f} s; see {self._folder}/server.log")
            time.sleep(0.5)
        self._num_seen = num
        time.sleep(2)  # its reports are heard, and nothing of the start goes on

    def memory_mib(self) -> float:
        """What its processes hold; what they share with others counts by its part."""
        record = ray_head.load(self._folder / "state" / "ray" / "head.json")
        assert record is not None  # noqa: S101 - it has started runs
        return sum(_held_mib(process) for process in ray_head.processes(record))


def _held_mib(process: psutil.Process) -> float:
    try:
        line = " ".join(process.cmdline())
        is_part = any(part in line for part in _PARTS)
        return process.memory_full_info().pss / 2**20 if is_part else 0.0
    except psutil.Error:
        return 0.0
