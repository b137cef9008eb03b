"""Checks a batch as plain values: defaults, items laid over them, and every mistake of every item at once. Knows no file and no server.

An item is a partial spec, with a `job_id` beside the spec's own sections when it wants one. Mistakes are named as the server
names them: `items[3].adapter.rank`, or `defaults.adapter.rank` for what all items inherit.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from google.protobuf import json_format

from lorafleet import spec
from lorafleet.batch.overlay import laid_over
from lorafleet.errors import InvalidSpec, Violation
from lorafleet.v1 import batch_service_pb2 as pb
from lorafleet.v1 import spec_pb2

MAX_ITEMS = 10_000
CHUNK_BYTES = 900 * 2**10  # of items in one message: well below gRPC's 4 MiB, whatever a proxy in between allows
MAX_SHOWN = 100  # violations: more do not help, and would not fit into a status
JOB_ID = "job_id"
_ID = re.compile(r"[a-z][a-z0-9-]{0,39}")
_BATCH_ID = re.compile(r"[a-z][a-z0-9-]{0,29}")
_COMPLETE = {"base_model": {"uri": "file:///base"}, "dataset": {"uri": "file:///data"}}  # what a spec must have at the least

Fields = Mapping[str, Any]


def check(defaults: Fields, items: Sequence[Fields], batch_id: str = "") -> None:
    """Raises InvalidSpec with everything that can be said against a batch without a server."""
    check_number(len(items))
    if found := [*_none(items), *_bad_batch_id(batch_id), *_mistakes(defaults, items), *_twice(defaults, items)]:
        raise InvalidSpec(shortened(found))


def check_number(num_items: int) -> None:
    """Raises InvalidSpec for more items than a batch holds: before each of them is looked at."""
    if num_items > MAX_ITEMS:
        message = f"has {num_items:,} items; a batch holds at most {MAX_ITEMS:,}: make two of it"
        raise InvalidSpec([Violation(field="items", message=message)])


def shortened(violations: Sequence[Violation]) -> list[Violation]:
    """The first MAX_SHOWN of many, and how many more there are."""
    if len(violations) <= MAX_SHOWN:
        return list(violations)
    more = Violation(field="items", message=f"and {len(violations) - MAX_SHOWN} more problems")
    return [*violations[:MAX_SHOWN], more]


def defaults_message(defaults: Fields) -> spec_pb2.TrainingSpec:
    """The partial spec that all items share, for the wire. Raises InvalidSpec."""
    return _spec_message("defaults", defaults)


def item_messages(items: Iterable[Fields]) -> Iterator[pb.BatchItem]:
    """The items for the wire. Raises InvalidSpec."""
    for index, item in enumerate(items):
        message = _spec_message(f"items[{index}]", _without_job_id(item))
        yield pb.BatchItem(job_id=str(item.get(JOB_ID) or ""), spec=message)


def chunks(items: Iterable[Fields]) -> Iterator[pb.BatchItems]:
    """The items in messages that are small enough to send. Raises InvalidSpec."""
    chunk, size_bytes = pb.BatchItems(), 0
    for message in item_messages(items):
        if chunk.items and size_bytes + message.ByteSize() > CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = pb.BatchItems(), 0
        chunk.items.append(message)
        size_bytes += message.ByteSize()
    if chunk.items:
        yield chunk


def _spec_message(path: str, fields: Fields) -> spec_pb2.TrainingSpec:
    try:
        return json_format.ParseDict(dict(fields), spec_pb2.TrainingSpec())
    except json_format.ParseError as error:
        raise InvalidSpec([Violation(field=path, message=str(error))]) from None


# Mistakes.


def _none(items: Sequence[Fields]) -> Iterator[Violation]:
    if not items:
        yield Violation(field="items", message="is empty: a batch holds 1 to 10,000 items")


def _bad_batch_id(batch_id: str) -> Iterator[Violation]:
    if batch_id and not _BATCH_ID.fullmatch(batch_id):
        yield Violation(field="batch_id", message=f"{batch_id!r} is not 1 to 30 of a-z, 0-9 and '-', starting with a letter")


def _mistakes(defaults: Fields, items: Sequence[Fields]) -> list[Violation]:
    return placed(defaults, [[*_broken(laid_over(defaults, _without_job_id(item))), *_broken_item(defaults, item)] for item in items])


def placed(defaults: Fields, of_items: Sequence[Sequence[Violation]]) -> list[Violation]:
    """The mistakes of each item, and once for all those that every item has from the defaults, or has in common."""
    inherited = set(_broken(laid_over(_COMPLETE, defaults)))
    times = Counter(violation for found in of_items for violation in found)
    common = {violation for violation, count in times.items() if count == len(of_items) > 1 and violation not in inherited}
    return [
        *(_at("defaults", violation) for violation in times if violation in inherited),
        *(_at("items[*]", violation) for violation in times if violation in common),
        *(_at(f"items[{index}]", one) for index, found in enumerate(of_items) for one in found if one not in inherited | common),
    ]


def _broken(fields: Fields) -> tuple[Violation, ...]:
    try:
        spec.parse(fields)
    except InvalidSpec as error:
        return error.violations
    return ()


def _broken_item(defaults: Fields, item: Fields) -> Iterator[Violation]:
    job_id = item.get(JOB_ID)
    if job_id is not None and not (isinstance(job_id, str) and _ID.fullmatch(job_id)):
        yield Violation(field=JOB_ID, message=f"{job_id!r} is not 1 to 40 of a-z, 0-9 and '-', starting with a letter")
    for path in _taken_back(defaults, item):
        yield Violation(field=path, message="cannot take back the default by being empty; leave the field out of the defaults")


def _taken_back(defaults: Fields, item: Fields, above: str = "") -> Iterator[str]:
    """Where an item sets nothing over something: on the wire that is a field that is not set, and the default would stand."""
    for name, value in item.items():
        below, path = defaults.get(name), f"{above}{name}"
        if _is_mapping(below) and _is_mapping(value):
            yield from _taken_back(below, value, f"{path}.")
        elif below and (value is None or value == [] or value == ()):
            yield path


def _twice(defaults: Fields, items: Sequence[Fields]) -> Iterator[Violation]:
    """Two items with one job id, or with one output."""
    yield from _repeated(JOB_ID, [item.get(JOB_ID) for item in items])
    yield from _repeated("output.uri", [_output_of(defaults, item) for item in items])


def _repeated(field: str, values: Sequence[Any]) -> Iterator[Violation]:
    places: dict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        if isinstance(value, str) and value:
            places[value].append(index)
    for value, found in places.items():
        for index in found[1:]:
            yield Violation(field=f"items[{index}].{field}", message=f"{value!r} is that of items[{found[0]}] too")


def _output_of(defaults: Fields, item: Fields) -> Any:
    output = laid_over(defaults, item).get("output")
    uri = output.get("uri") if _is_mapping(output) else None
    return uri.rstrip("/") if isinstance(uri, str) else None


def _at(place: str, violation: Violation) -> Violation:
    """spec.parse calls the whole `spec`."""
    field = place if violation.field == "spec" else f"{place}.{violation.field}"
    return Violation(field=field, message=violation.message)


def _without_job_id(item: Fields) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != JOB_ID}


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
