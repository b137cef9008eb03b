"""Makes the jobs' specs of a batch as it came in, with every mistake of every item. Knows neither the database nor the store."""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from lorafleet import spec, spec_proto
from lorafleet.batch import items as batch_items
from lorafleet.batch.overlay import laid_over
from lorafleet.contract.layout import job_root
from lorafleet.errors import InvalidInput, InvalidSpec, Violation
from lorafleet.spec import Spec
from lorafleet.v1 import batch_service_pb2 as pb
from service.core.resource_names import check_job_id

SLICE = 200  # items parsed in one go, away from the event loop

Fields = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """A batch to create. An empty `batch_id` is chosen by the service; an empty `request_id` makes repeats new batches."""

    tenant: str
    batch_id: str
    request_id: str
    defaults: Fields
    items: Sequence[pb.BatchItem]
    created_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One good item: the spec that comes of it, and the fields that it sets by itself."""

    index: int
    job_id: str  # as asked for
    own: Fields
    spec: Spec

    @cached_property
    def stored(self) -> dict[str, Any]:
        """The spec as plain values, with every default filled in."""
        return self.spec.model_dump(mode="json")

    def blame(self, section: str, name: str) -> str:
        """Where a mistake in a field is to be mended: in the item, or in the defaults that it has the field from."""
        own = self.own.get(section)
        place = f"items[{self.index}]" if isinstance(own, Mapping) and name in own else "defaults"
        return f"{place}.{section}.{name}"


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """The good items, in order, and the mistakes of the others."""

    items: Sequence[Item]
    mistakes: Sequence[Violation]


async def parse(new: NewBatch) -> Parsed:
    """All items.

    Thousands of specs are seconds of work: they are parsed in slices in a thread, so that other calls are answered meanwhile.
    """
    items: list[Item] = []
    mistakes: list[list[Violation]] = []
    for start in range(0, len(new.items), SLICE):
        for parsed in await asyncio.to_thread(_parse_slice, new, start):
            items += [parsed] if isinstance(parsed, Item) else []
            mistakes.append([] if isinstance(parsed, Item) else parsed)
    empty = [Violation(field="items", message=f"is empty: a batch holds 1 to {batch_items.MAX_ITEMS:,} items")] if not new.items else []
    return Parsed(items=items, mistakes=[*empty, *batch_items.placed(new.defaults, mistakes)])


def digest(new: NewBatch, items: Iterable[Item]) -> str:
    """Equal for equal requests: the specs with their defaults filled in, and the ids asked for."""
    body = hashlib.sha256(json.dumps(new.batch_id).encode())
    for item in items:
        body.update(json.dumps([item.job_id, item.stored], sort_keys=True).encode())
    return body.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ItemJob:
    """An item's job: its id, and the folder it writes to."""

    item: Item
    job_id: str
    output_uri: str

    @property
    def output_field(self) -> str:
        """Where a mistake in the output of this job alone is to be mended; an output of the service's choice in the item."""
        chosen = self.item.spec.output.uri is not None
        return self.item.blame("output", "uri") if chosen else f"items[{self.item.index}].output.uri"


def places(new: NewBatch, parsed: Parsed, batch_id: str, artifacts_uri: str) -> list[ItemJob]:
    """The batch's jobs, in order. Raises InvalidSpec with every mistake of the items, and when two would be the same."""
    found = [_place(item, new.tenant, batch_id, artifacts_uri) for item in parsed.items]
    twice = chain(
        _repeated((index, f"items[{index}].job_id", item.job_id) for index, item in enumerate(new.items) if item.job_id),
        _repeated((place.item.index, f"items[{place.item.index}].job_id", place.job_id) for place in found),
        _repeated((place.item.index, place.output_field, place.output_uri) for place in _first_of_each_id(found)),
    )
    if violations := list(dict.fromkeys([*parsed.mistakes, *twice])):
        raise InvalidSpec(violations)
    return found


def _parse_slice(new: NewBatch, start: int) -> list[Item | list[Violation]]:
    return [_parse(new.defaults, index, message) for index, message in enumerate(new.items[start : start + SLICE], start)]


def _parse(defaults: Fields, index: int, message: pb.BatchItem) -> Item | list[Violation]:
    own = spec_proto.fields(message.spec)
    found = list(_bad_id(message.job_id))
    try:
        parsed = spec.parse(laid_over(defaults, own))
    except InvalidSpec as error:
        return [*found, *error.violations]
    item = Item(index=index, job_id=message.job_id, own=own, spec=parsed)
    _ = item.stored  # here, in the thread
    return found or item


def _bad_id(job_id: str) -> Iterator[Violation]:
    try:
        _ = job_id and check_job_id(job_id, "job_id")
    except InvalidInput as error:
        yield from error.violations


def _repeated(values: Iterable[tuple[int, str, str]]) -> Iterator[Violation]:
    """Of (index, field, value): each value that another item had before, and which."""
    first: dict[str, int] = {}
    for index, field, value in values:
        if (before := first.setdefault(value, index)) != index:
            yield Violation(field=field, message=f"{value!r} is that of items[{before}] too")


def _first_of_each_id(places: Sequence[ItemJob]) -> Iterable[ItemJob]:
    """Two jobs of one id write to one folder, too, unless they say otherwise: that is one mistake, not two."""
    first: dict[str, ItemJob] = {}
    for place in places:
        first.setdefault(place.job_id, place)
    return first.values()


def _place(item: Item, tenant: str, batch_id: str, artifacts_uri: str) -> ItemJob:
    job_id = item.job_id or f"{batch_id}-{item.index:05d}"
    output_uri = item.spec.output.uri or job_root(artifacts_uri, f"tenants/{tenant}/jobs/{job_id}")
    return ItemJob(item=item, job_id=job_id, output_uri=output_uri)
