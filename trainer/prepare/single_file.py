"""A base in one file, made into a folder as diffusers has them, in the node's cache: looked at first, then turned once per content.

No torch until a file was found that is to be turned. What the file lacks is the spec's to give: `base_model.parts`.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafleet.catalog import FAMILIES, Family, single_files
from lorafleet.catalog.detection import CLASS
from lorafleet.catalog.family import MODEL_INDEX as INDEX
from lorafleet.catalog.part import Config, Part, PartKind
from lorafleet.catalog.single_file import ENDING, NoSuchLayout, Told, absent, configs, is_clips, lacking, prediction, told
from lorafleet.contract.confined_files import root_of_part
from lorafleet.contract.weight_files import MODEL_INDEX
from lorafleet.errors import RunFailed
from lorafleet.spec import BaseModelSpec
from trainer.prepare import node_cache
from trainer.prepare.base_digests import webui_hash
from trainer.prepare.clip_vocabulary import PACKAGE, published, write_vocabulary
from trainer.prepare.weight_headers import stored_tensors
from trainer.storage import Folder
from trainer.untrusted import Refused


@dataclass(frozen=True, kw_only=True)
class BaseFile:
    """A base's one file, as it was looked at."""

    uri: str
    version: str  # changes with its content
    sha256: str
    family: str
    given: tuple[str, ...]  # parts that are not taken from it
    webui_hash: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps([self.sha256, self.family, *self.given]).encode()).hexdigest()


def is_single(uri: str) -> bool:
    return uri.endswith(ENDING)


def look(spec: BaseModelSpec, cache: Folder) -> BaseFile:
    """What the file is. Raises RunFailed with what is wrong, and what is to be given with it."""
    folder, name = _place(spec.uri)
    entry = next((entry for entry in folder.list() if entry.path == name), None)
    if entry is None:
        raise _refused(spec.uri, "is not there", "BASE_MODEL_INCOMPLETE")
    try:
        tensors = {tensor: stored.shape for tensor, stored in stored_tensors(folder, entry).items()}
        found = told(single_files(), tensors)
        family = FAMILIES.get(found.family)
        found.rows(single_files()[family.name])
    except (Refused, NoSuchLayout) as why:
        raise _refused(spec.uri, str(why), "BASE_MODEL_UNSUPPORTED") from None
    if spec.family not in (None, family.name):
        raise RunFailed(
            f"base_model.family: {spec.uri} is {family.title}: write {family.name}, or leave it out", reason="BASE_MODEL_OTHER_FAMILY"
        )
    if lacks := _lacking(family, found, spec.part_uris):
        raise RunFailed("\n".join(f"base_model.uri: {spec.uri} {what}" for what in lacks), reason="BASE_MODEL_INCOMPLETE")
    version = f"{spec.uri}\0{entry.version}"
    return BaseFile(
        uri=spec.uri,
        version=entry.version,
        sha256=_sha256(folder, name, version, cache),
        family=family.name,
        given=tuple(sorted(spec.part_uris)),
        webui_hash=webui_hash(folder, entry),
    )


def folder_of(base_file: BaseFile) -> Path:
    """The folder that is made of the file, on this node."""
    target = node_cache.bases() / f"of-file-{base_file.key}"
    with node_cache.locked(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            partial = target.with_name(f".{target.name}.part")
            shutil.rmtree(partial, ignore_errors=True)
            _turn(base_file, partial)
            partial.rename(target)
    return target


def _turn(base_file: BaseFile, into: Path) -> None:
    into.mkdir()
    source = _local(base_file, into)
    try:
        _write(base_file, source, into)
    except Refused as why:
        raise _refused(base_file.uri, str(why), "BASE_MODEL_INCOMPLETE") from None
    finally:
        if source.parent == into:
            source.unlink()


def _write(base_file: BaseFile, path: Path, into: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
        found = told(single_files(), tensors)
        family = FAMILIES.get(found.family)
        gone = absent(family.parts, found, base_file.given)
        known = _configs(family, found, tensors)
        index: dict[str, Any] = {CLASS: family.pipeline, **known.get(INDEX, {})}
        for part in family.parts:
            config = known.get(part.name, {})
            index[part.name] = [None, None] if part.name in gone else [part.library, config.get(CLASS, part.classes[0])]
            if part.name not in (*gone, *base_file.given):
                _write_part(part, config, found, file, into)
    (into / MODEL_INDEX).write_text(json.dumps(index))


def _configs(family: Family, found: Told, tensors: Mapping[str, Any]) -> dict[str, Config]:
    """By part: of the published bases, and what this file's tensors say."""
    known: dict[str, Config] = dict(configs(family.name))
    read = single_files()[family.name].read(found.tensors[family.denoiser.name])
    for name, config in (*read.items(), *((part.name, prediction(tensors)) for part in family.of_kind(PartKind.SCHEDULER))):
        known[name] = {**known.get(name, {}), **config}
    return known


def _write_part(part: Part, config: Config, found: Told, file: Any, into: Path) -> None:
    from safetensors.torch import save_file

    from trainer.families._single_file import Source, converted

    (into / part.name).mkdir()
    (into / part.config).write_text(json.dumps(config))
    if part.kind is PartKind.TOKENIZER:
        _write_vocabulary(into / part.name)
    elif part.weights_name:
        layout = single_files()[found.family]
        rows = found.rows(layout) if part.name == layout.denoiser else None
        source = Source(file=file, prefix=found.prefixes[part.name], names=tuple(file.keys()), rows=rows)
        save_file(converted(part, config, source), into / part.name / f"{part.weights_name}.safetensors", {"format": "pt"})


def _write_vocabulary(folder: Path) -> None:
    if (source := published()) is None:
        raise Refused(f"has no {folder.name}, and {PACKAGE} is not installed on this node")
    write_vocabulary(source, folder)


def _lacking(family: Family, found: Told, given: Mapping[str, str]) -> list[str]:
    """What is neither in the file, nor given with it, nor on this node; and what to do."""
    parts = family.without(absent(family.parts, found, given)).parts
    lacks = list(lacking(parts, single_files()[family.name], found, given))
    if published() is None:
        lacks += [
            _without_vocabulary(part) for part in parts if part.kind is PartKind.TOKENIZER and is_clips(part) and part.name not in given
        ]
    return lacks


def _without_vocabulary(part: Part) -> str:
    where = f"base_model.parts.{part.name}"
    return f"has no {part.name}: name its folder in {where}, or install {PACKAGE} beside the trainer (pip install --no-deps)"


def _sha256(folder: Folder, name: str, version: str, cache: Folder) -> str:
    """Remembered for this very version."""
    where = f"digests/{hashlib.sha256(version.encode()).hexdigest()}.json"
    if known := cache.get_or_none(where):
        return json.loads(known)
    found = folder.sha256(name)
    cache.put(where, json.dumps(found).encode())
    return found


def _local(base_file: BaseFile, into: Path) -> Path:
    """The file on this node: in place, or downloaded."""
    if base_file.uri.startswith("file://"):
        return Path(base_file.uri.removeprefix("file://"))
    folder, name = _place(base_file.uri)
    folder.download([name], into=into)
    return into / name


def _place(uri: str) -> tuple[Folder, str]:
    parent, _, name = uri.rpartition("/")
    return Folder(parent, within=root_of_part(parent)), name


def _refused(uri: str, what: str, reason: str) -> RunFailed:
    return RunFailed(f"base_model.uri: {uri} {what}", reason=reason)
