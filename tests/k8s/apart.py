"""What tests that run beside each other, in processes of their own, must keep apart: locks on files of the build folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.k8s.release import REPOSITORY

FOLDER = REPOSITORY / "build" / "test-k8s"
SESSION = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))  # the same in all processes of a run


@contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[None]:
    """Waits for the lock of that name, which the kernel frees when its holder dies."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
