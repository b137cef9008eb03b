"""Makes a batch from a store: an item for each folder that matches a pattern such as `s3://styles/*/`."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from lorafleet import spec_file
from lorafleet.batch.file import BatchFile
from lorafleet.batch.items import JOB_ID, Fields
from lorafleet.batch.overlay import laid_over
from lorafleet.blobs import blobs_at
from lorafleet.errors import InvalidSpec, Violation

NAME = "{name}"  # in the defaults' texts: the folder's name
_MARK = "\ue000"  # stands for it while YAML reads, to which braces mean a mapping
MAX_ID = 40


def each(pattern: str, *, defaults: Fields, overrides: Sequence[str] = (), ids: str = NAME) -> BatchFile:
    """An item for each folder; `{name}` in texts of the defaults and overrides becomes the folder's name.

    The jobs' ids are made from the names by `ids`, as in `{name}-v2`, and the label `folder` holds the name as it is. Raises
    InvalidSpec, and NotFound when there is no such place.
    """
    parent, glob, below = _parts(pattern)
    names = sorted(name for name in blobs_at(parent).folders() if fnmatchcase(name, glob))
    if not names:
        raise _invalid(pattern, f"no folder in {parent} matches")
    common = _overridden(defaults, overrides)
    named = zip(names, job_ids([ids.replace(NAME, name) for name in names]), strict=True)
    loaded = BatchFile(
        defaults=common,
        items=[_item(common, name, id, f"{parent}{name}{below}") for name, id in named],
        places=[f"folder {name}" for name in names],
        every="every folder",
    )
    loaded.check()
    return loaded


def job_ids(names: Iterable[str]) -> list[str]:
    """An id for each name, all different: `Ölbild 2` becomes `olbild-2`; the second of two alike gets `-2`."""
    ids, taken, numbers = list[str](), set[str](), dict[str, int]()
    for name in names:
        base = id = _slug(name)
        while id in taken:
            numbers[base] = numbers.get(base, 1) + 1
            tail = f"-{numbers[base]}"
            id = base[: MAX_ID - len(tail)].rstrip("-") + tail
        taken.add(id)
        ids.append(id)
    return ids


def _item(defaults: Fields, name: str, id: str, uri: str) -> dict[str, Any]:
    return laid_over(_named(defaults, name), {JOB_ID: id, "dataset": {"uri": uri}, "labels": {"folder": name}})


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not words[:1].isalpha():  # an id starts with a letter
        words = f"style-{words}".rstrip("-")
    return words[:MAX_ID].rstrip("-")


def _parts(pattern: str) -> tuple[str, str, str]:
    """`s3://styles/`, `*`, `/pictures` of `s3://styles/*/pictures/`."""
    parts = pattern.rstrip("/").split("/")
    starred = [index for index, part in enumerate(parts) if "*" in part]
    if len(starred) != 1 or starred[0] < 3:
        raise _invalid(pattern, "is not a pattern with one * for the folders, such as s3://styles/*/")
    (index,) = starred
    return "/".join([*parts[:index], ""]), parts[index], "".join(f"/{part}" for part in parts[index + 1 :])


def _overridden(defaults: Fields, overrides: Sequence[str]) -> dict[str, Any]:
    fields = dict(defaults)
    for override in overrides:
        fields = cast(dict[str, Any], _replaced(spec_file.set_field(fields, override.replace(NAME, _MARK)), _MARK, NAME))
    return fields


def _named(fields: Fields, name: str) -> dict[str, Any]:
    """Those of the fields that hold `{name}`, with the name in its place."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            if inner := _named(cast(Fields, value), name):
                found[key] = inner
        elif (replaced := _replaced(value, NAME, name)) != value:
            found[key] = replaced
    return found


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_replaced(one, old, new) for one in cast(list[Any], value)]
    if isinstance(value, Mapping):
        return {key: _replaced(one, old, new) for key, one in cast(Fields, value).items()}
    return value


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec([Violation(field=field, message=message)])
