"""Folders on the worker's own disk that end with their process: what one that was killed has left goes when the next one starts."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path


class Scratch:
    """An empty folder, held while this process lives by a lock on it, which no kill leaves behind. A pid would tell less: it is taken
    again, and containers with one /tmp count their own."""

    def __init__(self, prefix: str) -> None:
        _sweep(prefix)
        while not self._make(prefix):  # another took it for a dead one's before it was locked
            pass

    def _make(self, prefix: str) -> bool:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = _locked(self.path)
        return self._lock is not None

    def remove(self) -> None:
        """Once is enough."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _sweep(prefix: str) -> None:
    """Removes those of dead processes of this user."""
    with suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            if (lock := _locked(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _locked(path: Path) -> int | None:
    """Holds the folder; None when a living process does, when it is gone, or when it is no folder of this user's own."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.getuid() and path.exists():
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
