"""Opens files below a folder on disk that others may write to, and goes out of it by no symbolic link, also by none that is put there
meanwhile. Links that stay inside are followed. Standard library only.

What leads to the folder itself is trusted: operators link whole folders, and grants look at what a spec names.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

OUT = "leads out of its folder by a symbolic link; put the file itself there"
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)  # O_PATH: asks for no right to list it


class LeadsOut(OSError):
    """A symbolic link below the folder leads to somewhere else."""

    def __str__(self) -> str:
        return OUT


def real(path: Path, folder: Path) -> Path:
    """The path without links. Raises LeadsOut."""
    found = Path(os.path.realpath(path))
    if not found.is_relative_to(os.path.realpath(folder)):
        raise LeadsOut
    return found


@contextmanager
def holding(path: Path, folder: Path, *, make: bool = False) -> Generator[int]:
    """A descriptor of the folder that `path` lies in, for the `dir_fd` of calls on its last name; `make`: made where it is missing.

    Raises LeadsOut, FileNotFoundError, and NotADirectoryError when a folder gives way to a link while it is opened.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    root = Path(os.path.realpath(folder))
    descriptor = os.open(root, _FOLDER)
    try:
        for name in real(path.parent, folder).relative_to(root).parts:
            descriptor = _step(descriptor, name, make)
        yield descriptor
    finally:
        os.close(descriptor)


def _step(above: int, name: str, make: bool) -> int:
    """One folder down, in the place of the one above."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
    below = os.open(name, _FOLDER, dir_fd=above)
    os.close(above)
    return below


def root_of_part(uri: str) -> str:
    """The same of a part in a folder of its own, which may be a base's repository or lie in one."""
    parent = uri.rstrip("/").rpartition("/")[0]
    return next((root for each in (uri, parent) if (root := root_of_base(each)) != each), uri)


def root_of_base(uri: str) -> str:
    """The folder that a base's files must lie in. Of a snapshot in a Hugging Face cache they lie beside it, and are links there:
    models--NAME/snapshots/REVISION/unet/config.json -> ../../../../blobs/DIGEST.
    """
    *above, repository, snapshots, _ = ["", "", *uri.rstrip("/").split("/")]
    return "/".join([*above[2:], repository]) if snapshots == "snapshots" and repository.startswith("models--") else uri
