"""The bases that a node keeps: where their folders lie, and that one process at a time makes one. No torch."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def bases() -> Path:
    """The folder of all of them."""
    return Path(os.environ.get("LORAFLEET_NODE_CACHE", "~/.cache/lorafleet")).expanduser() / "bases"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock at `path`, whose folder is made, against other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
