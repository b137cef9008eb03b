"""Keeps a store in `file:///folder`: objects are plain files, whole or not there, and no symbolic link leads out of a folder."""

import functools
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from lorafleet.contract import confined_files, plain_files, store_faults
from lorafleet.contract.store_faults import FaultKind
from service.store.bounded_reads import MAX_BYTES, StoreError, read, read_whole
from service.store.refusals import raised

NO_FILE = "NO_PLAIN_FILE"
LINK_OUT = "LINK_OUT"

_Method = TypeVar("_Method", bound=Callable[..., Any])
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def file_path(uri: str) -> Path:
    """The path that a `file://` URI names."""
    return Path(unquote(uri.removeprefix("file://")))


def _on_files(method: _Method) -> _Method:
    """A method of FileBacking whose OSErrors are ours."""

    @functools.wraps(method)
    def call(self: Any, uri: str, *arguments: Any) -> Any:
        try:
            return method(self, uri, *arguments)
        except confined_files.LeadsOut:
            raise StoreError(f"{uri} {confined_files.OUT}", reason=LINK_OUT) from None
        except plain_files.NoPlainFile:
            raise StoreError(f"{uri} is no plain file; the service reads no FIFO, socket or device", reason=NO_FILE) from None
        except OSError as error:
            fault = store_faults.of_errno(error.errno)
            what = fault.what if fault.kind is FaultKind.OPERATOR else error.strerror or type(error).__name__
            raise raised(f"{uri}: {what}", fault) from None

    return cast(_Method, call)


class FileBacking:
    """Objects below `folder`, which is the only one that they may lie in; each object's own when there is none."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = None if folder is None else file_path(folder)

    @_on_files
    def get(self, uri: str, most_bytes: int = MAX_BYTES) -> bytes | None:
        try:
            with plain_files.opened(*self._place(uri)) as file:
                return read_whole(uri, file, plain_files.size_bytes(file), most_bytes)
        except _NO_FILE:
            return None

    @_on_files
    def get_range(self, uri: str, start: int, size_bytes: int) -> bytes | None:
        try:
            with plain_files.opened(*self._place(uri)) as file:
                file.seek(start)
                return read(uri, file, size_bytes)
        except _NO_FILE:
            return None

    @_on_files
    def put(self, uri: str, data: bytes) -> None:
        path, folder = self._place(uri)
        with confined_files.holding(path, folder, make=True) as held:  # readers see the old object or the new one, never a part
            os.rename(_written_beside(path.name, data, held), path.name, src_dir_fd=held, dst_dir_fd=held)

    @_on_files
    def put_if_absent(self, uri: str, data: bytes) -> bool:
        path, folder = self._place(uri)
        with confined_files.holding(path, folder, make=True) as held:
            temporary = _written_beside(path.name, data, held)
            try:
                os.link(temporary, path.name, src_dir_fd=held, dst_dir_fd=held)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary, dir_fd=held)
        return True

    @_on_files
    def delete(self, uri: str) -> None:
        path, folder = self._place(uri)
        with suppress(FileNotFoundError), confined_files.holding(path, folder) as held:
            os.unlink(path.name, dir_fd=held)

    @_on_files
    def exists(self, uri: str) -> bool:
        path, folder = self._place(uri)
        try:
            place = confined_files.real(path, folder)
            with confined_files.holding(place, folder) as held:
                return stat.S_ISREG(os.stat(place.name, dir_fd=held, follow_symlinks=False).st_mode)
        except _NO_FILE:
            return False

    @_on_files
    def is_empty(self, uri: str) -> bool:
        path = file_path(uri)
        try:
            with confined_files.holding(path / "x", self._folder or path) as held:
                return _is_empty(held)
        except _NO_FILE:
            return True

    def signed_url(self, uri: str, lifetime_s: int) -> str:
        message = f"{uri}: a folder has no signed URLs; copy it from the machine that it is on, or keep artifacts in s3://"
        raise StoreError(message, reason="CANNOT_SIGN")

    def _place(self, uri: str) -> tuple[Path, Path]:
        """The object's path, and the folder that it must lie in."""
        path = file_path(uri)
        return path, self._folder or path.parent


def _written_beside(name: str, data: bytes, held: int) -> str:
    """A whole file in that folder, under a name that no one looks for."""
    temporary = f".{name}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=held)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return temporary


def _is_empty(held: int) -> bool:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    try:
        with os.scandir(descriptor) as entries:  # not all of them: there may be millions
            return next(entries, None) is None
    finally:
        os.close(descriptor)
