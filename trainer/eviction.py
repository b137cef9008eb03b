"""Pod termination: the trainer is notified, saves its work and ends before the pod is killed.

`python -m trainer.eviction` is the preStop hook of a run's pods: it leaves word in the pod's own folder (POD_DIR_ENV) and
waits until no part of the run is at work there; how long it may, Kubernetes knows. Imports the standard library only, so
that it begins at once. Where the folder is not set, nothing here does anything.
"""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from lorafleet.contract.pod_dir import POD_DIR_ENV

NOTICE = "leaving"
AT_WORK = "at-work-"  # and the process id
LOOK_EVERY_S = 0.25


def is_heard() -> bool:
    """Whether pods tell: the same on every worker of a run."""
    return _folder() is not None


def is_told() -> bool:
    """Whether this pod must go."""
    folder = _folder()
    return folder is not None and (folder / NOTICE).exists()


@contextmanager
def at_work() -> Generator[None]:
    """The hook waits for this process as long as it is in here."""
    folder = _folder()
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{AT_WORK}{os.getpid()}"
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def main() -> int:
    """Returns once no trainer is running."""
    folder = _folder()
    if folder is None:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTICE).touch()
    while any(_is_alive(mark) for mark in folder.glob(f"{AT_WORK}*")):
        time.sleep(LOOK_EVERY_S)
    return 0


def _is_alive(mark: Path) -> bool:
    try:
        os.kill(int(mark.name.removeprefix(AT_WORK)), 0)
    except ProcessLookupError:
        return False
    return True


def _folder() -> Path | None:
    folder = os.environ.get(POD_DIR_ENV)
    return Path(folder) if folder else None


if __name__ == "__main__":
    sys.exit(main())
