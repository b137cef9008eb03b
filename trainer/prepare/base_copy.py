"""A base's files in a local folder, as the libraries load them: in place, linked, or downloaded once per content. No torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorafleet.contract.confined_files import root_of_part
from lorafleet.errors import RunFailed
from trainer.prepare import base_digests, node_cache, single_file
from trainer.prepare.base_model import BaseModel
from trainer.ranges import Object
from trainer.storage import Folder


def materialise(base: BaseModel, *, streams: bool = True) -> Path:
    """A local folder with the base's files, and no others that loading might take for them; without those that are streamed, or, where
    nothing is to be, with all.

    In place for a plain file:// base, else in the node's cache, or in a folder of this process where that is off: linked, or
    downloaded once per content.
    """
    base = _as_folder(base)
    if base.uri.startswith("file://") and base.is_plain:
        return Path(base.uri.removeprefix("file://"))
    cache = (node_cache.scratch() if node_cache.is_off() else node_cache.bases()) / base.files_digest
    with node_cache.locked(cache / ".lock"):
        _link(base, [path for path in base.files if not _is_remote(base, path)], cache)
        _download(base, [path for path in base.files if _is_remote(base, path) and not (streams and _is_streamed(base, path))], cache)
    return cache


def streamed(base: BaseModel, part: str) -> dict[str, Object]:
    """The files of a part that are to be read from where they are, straight into tensors, by their paths in the base.

    None of them where the node has a cache: then what is in it is mapped, and the next process finds it there.
    """
    base = _as_folder(base)
    paths = sorted(path for path in base.files if path.startswith(f"{part}/") and _is_streamed(base, path))
    folder = _folder(base, _own_part(base, f"{part}/"))
    return {path: Object(folder=folder, entry=replace(base.entries[path], path=_inner(base, path))) for path in paths}


def _as_folder(base: BaseModel) -> BaseModel:
    if base.single_file is None:
        return base
    return replace(base, uri=single_file.folder_of(base.single_file).as_uri(), single_file=None)


def _is_remote(base: BaseModel, path: str) -> bool:
    return not base.where(path).startswith("file://")


def _is_streamed(base: BaseModel, path: str) -> bool:
    return node_cache.is_off() and path.endswith(base_digests.ENDING) and _is_remote(base, path)


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
        ours = [path for path in missing if _own_part(base, path) == part]
        _folder(base, part).download([_inner(base, path) for path in ours], into=cache / part)
    for path in missing:
        if _sha256_of(cache / path) != base.files[path]:
            (cache / path).unlink()
            raise RunFailed(
                f"base_model.uri: {base.where(path)} changed while it was read; try again", reason="BASE_MODEL_CHANGED", retryable=True
            )
        (cache / path).rename(cache / base.loaded_as.get(path, path))


def _folder(base: BaseModel, part: str) -> Folder:
    """The folder of a part that lies elsewhere; for nothing the base's own."""
    uri = base.parts[part] if part else base.uri
    return Folder(uri, within=root_of_part(uri))


def _inner(base: BaseModel, path: str) -> str:
    """A file's path in the folder that it lies in."""
    part = _own_part(base, path)
    return path.removeprefix(f"{part}/") if part else path


def _own_part(base: BaseModel, path: str) -> str:
    """The part that the file is of, where that part lies elsewhere; else nothing."""
    part = path.partition("/")[0]
    return part if part in base.parts else ""


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
