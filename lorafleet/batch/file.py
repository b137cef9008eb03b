"""Reads batches on disk: YAML with defaults and items, or CSV with a row per item. Every mistake is reported with its place in the file."""

import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from lorafleet import spec, spec_file, yaml_text
from lorafleet.batch import items as batch_items
from lorafleet.batch.items import JOB_ID, Fields
from lorafleet.batch.overlay import laid_over
from lorafleet.errors import InvalidSpec, Violation

MAX_BYTES = 64 * 2**20  # as many as the server takes
_SECTIONS = ("batch_id", "defaults", "items")
_INDEX = re.compile(r"items\[(\d+|\*)\](\.?)")


@dataclass(frozen=True, kw_only=True)
class BatchFile:
    """A batch as it was read. `places` names each item as its author knows it: `row 4 (line 5)`; empty: by index."""

    defaults: Fields
    items: Sequence[Fields]
    batch_id: str = ""
    places: Sequence[str] = ()
    every: str = "items[*]"  # all items, in the author's words
    problems: tuple[Violation, ...] = ()  # found while reading

    def check(self) -> None:
        """Raises InvalidSpec with everything that can be said without a server."""
        found = list(self.problems)
        try:
            batch_items.check(self.defaults, self.items, self.batch_id)
        except InvalidSpec as error:
            found += self.in_its_words(error).violations
        if found:
            raise InvalidSpec(batch_items.shortened(found))

    def in_its_words(self, error: InvalidSpec) -> InvalidSpec:
        """The same mistakes, ours or the server's, by their places in the file."""
        return InvalidSpec([self._placed(violation) for violation in error.violations])

    def _placed(self, violation: Violation) -> Violation:
        if not self.places:
            return violation
        return Violation(field=_INDEX.sub(self._place_before, violation.field), message=_INDEX.sub(self._place_before, violation.message))

    def _place_before(self, match: re.Match[str]) -> str:
        index, dot = match.groups()
        place = self.every if index == "*" else self.places[int(index)] if int(index) < len(self.places) else match[0]
        return f"{place}: " if dot else place


def load(path: Path, *, defaults: Path | None = None, overrides: Sequence[str] = ()) -> BatchFile:
    """The batch in a .csv or YAML file. `overrides` (`training.max_steps=200`) are set over the defaults. Raises InvalidSpec."""
    with spec_file.reading(path):
        below = spec_file.read(defaults) if defaults else {}
        read = read_csv(path, below) if path.suffix.lower() == ".csv" else read_yaml(path, below)
        loaded = replace(read, defaults=overridden(read.defaults, overrides))
        loaded.check()
        return loaded


def overridden(defaults: Fields, overrides: Sequence[str]) -> dict[str, Any]:
    """The defaults with single fields set over them. Raises InvalidSpec."""
    fields = dict(defaults)
    for override in overrides:
        if "{name}" in override:
            raise _invalid(override, "{name} stands for a folder's name, and there are folders with --each alone")
        fields = spec_file.set_field(fields, override)
    return fields


# YAML.


def read_yaml(path: Path, defaults: Fields) -> BatchFile:
    """`defaults:`, `items:` and, if it likes, `batch_id:`. Raises InvalidSpec when it is no such file."""
    fields = spec_file.read(path, most_bytes=MAX_BYTES)
    if problems := [*_unknown(fields), *_wrong_kinds(fields)]:
        raise InvalidSpec(problems)
    items = cast(list[Any], fields["items"])
    broken = [
        Violation(field=f"items[{index}]", message="is not a mapping") for index, item in enumerate(items) if not isinstance(item, dict)
    ]
    return BatchFile(
        batch_id=fields.get("batch_id") or "",
        defaults=laid_over(defaults, fields.get("defaults") or {}),
        items=[cast(Fields, item) if isinstance(item, dict) else {} for item in items],
        problems=tuple(broken),
    )


def _unknown(fields: Fields) -> Iterator[Violation]:
    for name in fields:
        if name not in _SECTIONS:
            close = difflib.get_close_matches(str(name), _SECTIONS, n=1)
            hint = f"; close: {close[0]}" if close else "; a batch file has batch_id:, defaults: and items:"
            yield Violation(field=str(name), message=f"unknown field{hint}")


def _wrong_kinds(fields: Fields) -> Iterator[Violation]:
    if not isinstance(fields.get("items"), list):
        yield Violation(field="items", message="is not a list" if fields.get("items") is not None else "is required: a list of specs")
    if not isinstance(fields.get("defaults") or {}, dict):
        yield Violation(field="defaults", message="is not a mapping")
    if not isinstance(fields.get("batch_id") or "", str):
        yield Violation(field="batch_id", message="is not text; put it in quotes")


# CSV.


def read_csv(path: Path, defaults: Fields) -> BatchFile:
    """A header of spec paths (`dataset.uri`, `labels.customer`, `job_id`), a row for each item; an empty cell is not set.

    Raises InvalidSpec when the header cannot be used, and InvalidInput when the file cannot be read.
    """
    rows = list(_rows(path, spec_file.read_text(path, MAX_BYTES)))
    header = _header(path, rows[0][1] if rows else [])
    batch_items.check_number(len(rows) - 1)
    read = [_item(header, cells) for _, cells in rows[1:]]
    places = [f"row {number} (line {line})" for number, (line, _) in enumerate(rows[1:], start=1)]
    problems = [_at(place, problem) for place, (_, found) in zip(places, read, strict=True) for problem in found]
    items = [item for item, _ in read]
    return BatchFile(defaults=defaults, items=items, places=places, every="every row", problems=tuple(problems))


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, each with the line that it begins in."""
    reader, begins = csv.reader(StringIO(text, newline=""), strict=True), 1
    try:
        for cells in reader:
            if any(cells):
                yield begins, [cell.strip() for cell in cells]
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _invalid(str(path), f"is no CSV: line {begins}: {error}") from None


def _header(path: Path, cells: Sequence[str]) -> Sequence[str]:
    wrong = [cell[:80] for cell in cells if not all(cell.split(".")) or cell.count(".") > yaml_text.MAX_DEPTH]
    twice = sorted({cell for cell in cells if cells.count(cell) > 1} - set(wrong))
    if not cells or wrong or twice:
        problems = [f"{cell!r} is not the path of a field, such as training.max_steps" for cell in wrong] + [
            f"{cell} is there twice" for cell in twice
        ]
        raise InvalidSpec([Violation(field=f"{path} (header)", message=one) for one in problems or ["is missing: the file is empty"]])
    return cells


def _item(header: Sequence[str], cells: Sequence[str]) -> tuple[dict[str, Any], list[Violation]]:
    """What a row sets, and what is wrong with it as text."""
    item, problems = dict[str, Any](), list[Violation]()
    if len(cells) != len(header):
        problems.append(Violation(field="", message=f"has {len(cells)} cells, but the header has {len(header)}"))
    for path, text in zip(header, cells, strict=False):
        if text:
            try:
                item = spec_file.with_value(item, path.split("."), _value(path, text), path)
            except yaml.YAMLError:
                problems.append(Violation(field=path, message=f"{text[:80]!r} is not YAML"))
            except InvalidSpec as error:
                problems += error.violations
    return item, problems


def _value(path: str, text: str) -> Any:
    """Texts stay as they are: a customer 007 is no number, and a trigger phrase `no` is not false."""
    return text if _is_text(path) else yaml_text.load(text)


def _is_text(path: str) -> bool:
    section, _, name = path.partition(".")
    if path == JOB_ID or section == "labels":
        return True
    part = spec.Spec.model_fields[section].annotation if section in spec.Spec.model_fields else None
    if not isinstance(part, type) or not issubclass(part, BaseModel) or name not in part.model_fields:
        return False
    return cast(Any, part.model_fields[name].annotation) in (str, str | None)


def _at(place: str, problem: Violation) -> Violation:
    return Violation(field=f"{place}: {problem.field}" if problem.field else place, message=problem.message)


def _invalid(field: str, message: str) -> InvalidSpec:
    return InvalidSpec([Violation(field=field, message=message)])
