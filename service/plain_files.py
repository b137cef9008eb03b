"""Opens files that others have written: plain ones only, so that nothing under a name that a tenant chose makes a thread wait."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class NoPlainFile(OSError):
    """There is something under that name, but a FIFO, a socket or a device."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file. Raises FileNotFoundError, IsADirectoryError, NoPlainFile and whatever else the system says.

    Looked at before it is opened, as opening some devices has effects; and once more then, as it may have been replaced.
    """
    _check(os.stat(path))
    # Opening a FIFO waits for its writer, which nothing but a process of the tenant's can end: not even the server's shutdown.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        _check(os.fstat(descriptor))
        yield file


def size_bytes(file: BinaryIO) -> int:
    """As it is now."""
    return os.fstat(file.fileno()).st_size


def _check(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(found.st_mode):
        raise NoPlainFile
