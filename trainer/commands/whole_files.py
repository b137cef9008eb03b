"""Whole files and folders, or none: what commands write."""

import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lorafleet.errors import InvalidInput


def check_target(target: Path, *, is_folder: bool, force: bool, ending: str = ".safetensors") -> None:
    """Raises InvalidInput where it cannot be written, before anything is computed."""
    kind = "a folder" if is_folder else "one file"
    if not target.parent.is_dir():
        raise InvalidInput(f"{target}: there is no folder {target.parent}")
    if target.exists() and not force:
        raise InvalidInput(f"{target} is there already; --force replaces it")
    if target.exists() and target.is_dir() != is_folder:
        raise InvalidInput(f"{target} is {'a folder' if target.is_dir() else 'a file'}; what is written is {kind}")
    if not is_folder and target.suffix != ending:
        raise InvalidInput(f"{target}: name a file that ends in {ending}: programs tell by it what it is")


def put(target: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Files by name, "" for the only one: written beside `target` and then renamed, so that nobody ever finds half of it."""
    with beside(target, force=force) as made:
        for name, data in files.items():
            path = made / name if name else made
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


@contextmanager
def beside(target: Path, *, force: bool) -> Generator[Path]:
    """A place beside it, whose file or folder takes its name in the end; nothing is left of it where that is not reached."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as room:
        made = Path(room) / "made"
        yield made
        if target.is_dir() and force:
            target.replace(Path(room) / "before")
        made.replace(target)
        shutil.rmtree(Path(room) / "before", ignore_errors=True)
