"""A base's files in a local folder, as the libraries load them: in place, linked, or downloaded once per content. No torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorafleet.contract.confined_files import root_of_part
from lorafleet.errors import RunFailed
from trainer.prepare import node_cache, single_file
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder


def materialise(base: BaseModel) -> Path:
    """A local folder with the base's files, and no others that loading might take for them.

    In place for a plain file:// base, else in the node's cache: linked, or downloaded once per content.
    """
    if base.single_file is not None:
        base = replace(base, uri=single_file.folder_of(base.single_file).as_uri(), single_file=None)
    if base.uri.startswith("file://") and base.is_plain:
        return Path(base.uri.removeprefix("file://"))
    cache = node_cache.bases() / base.files_digest
    with node_cache.locked(cache / ".lock"):
        _link(base, [path for path in base.files if base.where(path).startswith("file://")], cache)
        _download(base, [path for path in base.files if not base.where(path).startswith("file://")], cache)
    return cache


def _link(base: BaseModel, paths: Sequence[str], cache: Path) -> None:
    for path in paths:
        target = Path(base.where(path).removeprefix("file://"))
        link = cache / base.loaded_as.get(path, path)
        if not link.exists():  # nor is one whose target is gone
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def _download(base: BaseModel, paths: Sequence[str], cache: Path) -> None:
    missing = [path for path in paths if not (cache / base.loaded_as.get(path, path)).exists()]
    for part in dict.fromkeys(_own_part(base, path) for path in missing):
        prefix = f"{part}/" if part else ""
        ours = [path.removeprefix(prefix) for path in missing if _own_part(base, path) == part]
        uri = base.parts[part] if part else base.uri
        Folder(uri, within=root_of_part(uri)).download(ours, into=cache / part)
    for path in missing:
        if _sha256_of(cache / path) != base.files[path]:
            (cache / path).unlink()
            raise RunFailed(
                f"base_model.uri: {base.where(path)} changed while it was read; try again", reason="BASE_MODEL_CHANGED", retryable=True
            )
        (cache / path).rename(cache / base.loaded_as.get(path, path))


def _own_part(base: BaseModel, path: str) -> str:
    """The part that the file is of, where that part lies elsewhere; else nothing."""
    part = path.partition("/")[0]
    return part if part in base.parts else ""


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
