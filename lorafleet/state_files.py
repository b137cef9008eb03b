"""Writes small files of state on this machine: whole or not at all, readable by their owner alone. A broken one is named, never quoted."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lorafleet.contract import store_faults
from lorafleet.contract.store_faults import FaultKind
from lorafleet.errors import FailedPrecondition, LorafleetError, OperatorsFault, Unavailable

PRIVATE = 0o600
BROKEN = "STATE_FILE_BROKEN"

T = TypeVar("T")


def write(path: Path, text: str) -> None:
    """The file with this text, or as it was. Raises OperatorsFault (DISK_FULL, DISK_READ_ONLY), and Unavailable for what else fails."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            _write_through(temporary, text.encode())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None


def read(path: Path, parsed: Callable[[str], T]) -> T | None:
    """What the file holds; None when there is none. Raises FailedPrecondition (STATE_FILE_BROKEN), and Unavailable if it cannot be read."""
    try:
        return parsed(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", reason="STATE_FILE_UNREADABLE") from None
    except (ValueError, TypeError, LookupError) as error:
        message = f"{path} is broken ({type(error).__name__}); restore it from a backup, or delete it to begin without what it remembered"
        raise FailedPrecondition(message, reason=BROKEN) from None


def make_private(path: Path) -> None:
    """An older version of us, or another program, may have made the file for all to read. Nothing where there is none."""
    try:
        if stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_mode & 0o077:
            path.chmod(PRIVATE)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(path, error) from None


def made_private(path: Path) -> Path:
    """The file, empty where there was none: what other libraries write into it, and beside it, they write for its owner alone."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE))
    except OSError as error:
        raise unwritable(path, error) from None
    make_private(path)
    return path


def unwritable(path: Path, error: OSError) -> LorafleetError:
    """What a failed write of a file of ours is raised as."""
    fault = store_faults.of_errno(error.errno)
    if fault.kind is FaultKind.OPERATOR:
        return OperatorsFault(f"{path} cannot be written: {fault.what}", reason=fault.reason)
    return Unavailable(f"{path} cannot be written: {error.strerror or type(error).__name__}", reason="STATE_FILE_UNWRITABLE")


def _write_through(path: Path, data: bytes) -> None:
    """To the disk, so that no crash leaves an empty file under the name that it gets."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
