"""Opens files that others have written: plain ones only, so that nothing under a name that a tenant chose makes a thread wait."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lorafleet.contract import confined_files


class NoPlainFile(OSError):
    """There is something under that name, but a FIFO, a socket or a device."""


@contextmanager
def opened(path: Path, folder: Path) -> Generator[BinaryIO]:
    """The file, that must lie in `folder`. Raises inside.LeadsOut, FileNotFoundError, IsADirectoryError, NoPlainFile and whatever else
    the system says.

    Looked at before it is opened, as opening some devices has effects; and once more then, as it may have been replaced.
    """
    place = confined_files.real(path, folder)
    with confined_files.holding(place, folder) as held:
        _check(os.stat(place.name, dir_fd=held, follow_symlinks=False))
        # Opening a FIFO waits for its writer, which nothing but a process of the tenant's can end: not even the server's shutdown.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(place.name, flags, dir_fd=held)
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
