"""The bases that a node keeps: where their folders lie, and that one process at a time makes one. No torch."""

import atexit
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from trainer.scratch import Scratch

FOLDER = "~/.cache/lorafleet"
OFF = "off"


def bases() -> Path:
    """The folder of all of them. There is one also where it is off: a base in one file must be turned somewhere."""
    return Path(FOLDER if is_off() else _setting()).expanduser() / "bases"


def is_off() -> bool:
    """Whether this node keeps no weights of bases in stores: each process reads them from there."""
    return _setting() == OFF


@cache
def scratch() -> Path:
    """A folder of this process's own, which goes with it."""
    kept = Scratch("lorafleet-base-")
    atexit.register(kept.remove)
    return kept.path


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds the lock at `path`, whose folder is made, against other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _setting() -> str:
    return os.environ.get("LORAFLEET_NODE_CACHE") or FOLDER
