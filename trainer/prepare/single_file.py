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

from lorafleet.catalog import FAMILIES, Family
from lorafleet.catalog.detection import CLASS
from lorafleet.catalog.part import Part, PartKind
from lorafleet.catalog.single_file import ENDING, NoSuchLayout, SingleFile, configs, prediction, told
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
        family = FAMILIES.get(told(_layouts(), tensors))
    except (Refused, NoSuchLayout) as why:
        raise _refused(spec.uri, str(why), "BASE_MODEL_UNSUPPORTED") from None
    if spec.family not in (None, family.name):
        raise RunFailed(
            f"base_model.family: {spec.uri} is {family.title}: write {family.name}, or leave it out", reason="BASE_MODEL_OTHER_FAMILY"
        )
    if lacking := _lacking(family, tensors, spec.part_uris):
        raise RunFailed("\n".join(f"base_model.uri: {spec.uri} {what}" for what in lacking), reason="BASE_MODEL_INCOMPLETE")
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


def _write(base_file: BaseFile, source: Path, into: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    from trainer.families._single_file import converted

    family, layout, known = FAMILIES.get(base_file.family), _layouts()[base_file.family], configs(base_file.family)
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping; the pages are the file's own
    index: dict[str, Any] = {CLASS: family.pipeline}
    for part in family.parts:
        config = {**known.get(part.name, {}), **(prediction(dict.fromkeys(tensors, ())) if part.kind is PartKind.SCHEDULER else {})}
        index[part.name] = [part.library, config.get(CLASS, part.classes[0])]
        if part.name in base_file.given:
            continue
        (into / part.name).mkdir()
        (into / part.config).write_text(json.dumps(config))
        if part.kind is PartKind.TOKENIZER:
            _write_vocabulary(into / part.name)
        elif part.weights_name:
            found = converted(part, layout.parts[part.name], config, tensors)
            save_file(found, into / part.name / f"{part.weights_name}.safetensors", {"format": "pt"})
    (into / MODEL_INDEX).write_text(json.dumps(index))


def _write_vocabulary(folder: Path) -> None:
    if (source := published()) is None:
        raise Refused(f"has no {folder.name}, and {PACKAGE} is not installed on this node")
    write_vocabulary(source, folder)


def _lacking(family: Family, tensors: Mapping[str, Any], given: Mapping[str, str]) -> list[str]:
    return [what for part in family.parts if part.name not in given and (what := _lack(part, family, tensors))]


def _lack(part: Part, family: Family, tensors: Mapping[str, Any]) -> str | None:
    """What of that part is not to be had from the file, and what to do; None: nothing."""
    layout, field = _layouts()[family.name], f"base_model.parts.{part.name}"
    if part.weights_name and not any(name.startswith(layout.parts[part.name]) for name in tensors):
        return f"lacks {part.name}; name its folder in {field}"
    if part.kind is PartKind.TOKENIZER and published() is None:
        return f"has no {part.name}: name its folder in {field}, or install {PACKAGE} beside the trainer (pip install --no-deps)"
    if part.kind is PartKind.SCHEDULER and not layout.says_prediction:
        return f"does not say what it predicts, as {family.title} has both; name a scheduler's folder in {field}"
    return None


def _layouts() -> dict[str, SingleFile]:
    return {family.name: family.single_file for family in FAMILIES.all() if family.single_file is not None}


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
