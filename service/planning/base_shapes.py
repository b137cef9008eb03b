"""The shapes of a base model's weights, read from the headers of its files in the store: what the memory model counts with.

Only a few kilobytes of each file are read, in the background, and a process of its own parses them (`untrusted`). A base whose
headers cannot be read is trained all the same: the trainer says what is wrong with it, and until then packs on it are limited
by the number of styles alone. What they train for is read too: a job on a base whose objective is not trained is not launched.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from lorafleet import objectives
from lorafleet.catalog import FAMILIES, Family, detection
from lorafleet.contract.weight_files import MODEL_INDEX, SHARD, indices, single_files
from service.control.memory import BaseShapes, Shape
from service.core.clock import Clock
from service.db import row_faults
from service.planning import checkpoints
from service.planning.base_places import Places
from service.store.bounded_reads import StoreError
from service.store.client import Store
from service.untrusted.parsing import Parser, Unreadable

LOOP = "footprints"  # as the metric of rows' errors names it
READ_AGAIN_S = 60.0  # after a failure
READ_WITHIN_S = 20.0  # all files of a base
AWAITED_S = 10.0  # then its jobs no longer wait for them, whoever is in the way
MAX_BASES = 1000  # that are remembered
MAX_HEADER_BYTES = 8 * 2**20
MAX_INDEX_BYTES = 4 * 2**20
MAX_CONFIG_BYTES = 2**18
NO_PARTS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class TenantBase:
    """A base as one tenant reads it: what one can read is not another's to know."""

    uri: str
    store_credentials: str
    family: str | None  # None: it is to be told from the base's files
    parts: tuple[tuple[str, str], ...] = ()  # (part, URI) of those that lie elsewhere

    @property
    def known_family(self) -> Family | None:
        return None if self.family is None else FAMILIES.get(self.family)


@dataclass(frozen=True)
class _Known:
    again_at_s: float | None  # when a base that could not be read, or is not trained, is read again for a new job; monotonic
    shapes: BaseShapes | None = None
    family: str | None = None  # as it was given, or told from its files
    unfit: str | None = None  # why nothing can be trained on it


@dataclass(frozen=True)
class _Reading:
    task: asyncio.Task[None]
    since_s: float  # monotonic


class LacksShards(Unreadable):
    """An index names files that are not there."""


class ShapeCache:
    """The shapes of the bases that were asked for."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        parser: Parser | None = None,
        *,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self.parser = parser or Parser()
        self.num_late = 0  # readings that somebody went on without: what was decided then is decided anew once it changes
        self._store, self._clock = store, clock
        self._ring = ring  # wakes those who went on
        self._known = OrderedDict[TenantBase, _Known]()
        self._unfit: dict[TenantBase, str] = {}  # why nothing can be trained on these
        self._reading: dict[TenantBase, _Reading] = {}

    def known(self, base: TenantBase) -> BaseShapes | None:
        """The shapes as far as they were read with these credentials."""
        found = self._known.get(base)
        return None if found is None else found.shapes

    def why_not(self, base: TenantBase) -> str | None:
        """Why no job can train on the base, in the trainer's words; None: nothing is known to be in the way."""
        return self._unfit.get(base)

    def family(self, base: TenantBase) -> str | None:
        """The family of a base that was given with it, or else was told from its files."""
        found = self._known.get(base)
        return base.family or (None if found is None else found.family)

    def is_awaited(self, base: TenantBase) -> bool:
        """Whether they are being read, and will be known soon or found unreadable."""
        reading = self._reading.get(base)
        return reading is not None and self._clock.monotonic_s() - reading.since_s < AWAITED_S

    async def read(self, bases: Collection[tuple[str, TenantBase]], within_s: float) -> None:
        """Reads what is not known yet, each for the tenant that it stands beside, and waits for that no longer than told: readings
        go on in the background. A base that cannot be read is asked for again after a while. Never raises."""
        begun = [self._begin(tenant, base) for tenant, base in sorted(set(bases), key=repr) if self._is_due(base)]
        if begun:
            _, late = await asyncio.wait(begun, timeout=within_s)
            for task in late:
                task.add_done_callback(self._tell_late)

    async def close(self) -> None:
        """Ends what is being read, with its process."""
        tasks = [reading.task for reading in self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_due(self, base: TenantBase) -> bool:
        found = self._known.get(base)
        if found is not None and (found.again_at_s is None or found.again_at_s > self._clock.monotonic_s()):
            return False
        return base not in self._reading

    def _begin(self, tenant: str, base: TenantBase) -> asyncio.Task[None]:
        self._known.pop(base, None)  # it is to be judged by what is read now
        self._unfit.pop(base, None)
        task = asyncio.create_task(self._read_one(tenant, base))
        self._reading[base] = _Reading(task, self._clock.monotonic_s())
        task.add_done_callback(lambda _: self._reading.pop(base))
        return task

    async def _read_one(self, tenant: str, base: TenantBase) -> None:
        found = _Known(self._clock.monotonic_s() + READ_AGAIN_S)
        with row_faults.own(LOOP, base.uri):
            async with self.parser.lanes.of(tenant), asyncio.timeout(READ_WITHIN_S):
                places = Places(self._store.of(base.store_credentials), base.uri, dict(base.parts))
                found = await self._judged(places, base, found)  # what is known by then counts, whether or not its shapes can be read
                found = await self._measured(places, found)
        self._remember(base, found)
        if base.family is None and found.family is not None:  # jobs that name it, and those that were told it, are on the same base
            self._remember(replace(base, family=found.family), found)

    async def _judged(self, places: Places, base: TenantBase, found: _Known) -> _Known:
        """With its family, and why nothing can be trained on it; of one file also with its shapes."""
        if places.is_single_file:
            seen = await _single_file(places, self.parser)
            family = None if seen.family is None else seen.family.name
            return replace(found, family=family, unfit=seen.why_not, shapes=seen.shapes, again_at_s=None)
        family = base.known_family or await read_family(places, self.parser)
        unfit = family if isinstance(family, str) else await _unfit(places, self.parser, family)
        return replace(found, unfit=unfit, family=family.name if isinstance(family, Family) else None)

    async def _measured(self, places: Places, found: _Known) -> _Known:
        """With its shapes."""
        if found.family is None or found.shapes is not None:
            return found
        try:
            shapes = await read_shapes(places.store, places.uri, self.parser, FAMILIES.get(found.family), places.parts)
        except LacksShards as lack:
            return replace(found, unfit=str(lack))
        return replace(found, shapes=shapes, again_at_s=None)

    def _remember(self, base: TenantBase, found: _Known) -> None:
        if found.unfit is not None:
            self._unfit[base] = found.unfit
            found = replace(found, again_at_s=self._clock.monotonic_s())  # it may be mended before the next job names it
        self._known[base] = found
        if len(self._known) > MAX_BASES:
            forgotten, _ = self._known.popitem(last=False)
            self._unfit.pop(forgotten, None)

    def _tell_late(self, _: asyncio.Task[None]) -> None:
        self.num_late += 1
        self._ring()


async def _single_file(places: Places, parser: Parser) -> checkpoints.Found:
    """Of a base in one file, what its header tells. Raises Unreadable, and what the store raises."""
    own = _as_shapes(await parser.parse("tensors", [await _header(places, "")]))
    given = {part: await _given(places, part, parser) for part in places.parts}
    return checkpoints.found(places.uri, own, given)


async def _given(places: Places, part: str, parser: Parser) -> dict[str, Shape]:
    """Nothing of a part without weights."""
    header = await _header_of(places, part, parser)
    return _as_shapes(await parser.parse("tensors", [header])) if header else {}


def _as_shapes(answer: Mapping[str, Any]) -> dict[str, Shape]:
    return _layers(answer["shapes"])


async def read_family(places: Places, parser: Parser) -> Family | str | None:
    """The family of the base, or why it is of none; None: its files do not say, which is the trainer's to tell."""
    index = await _config(places, MODEL_INDEX, parser)
    if not isinstance(index.get(detection.CLASS), str):
        return None
    families = detection.of_pipeline(index)
    if not families:
        return f"base_model.family: {places.uri} is {detection.unknown(index)}"
    denoiser = families[0].denoiser
    config = await _config(places, denoiser.config, parser) if len(families) > 1 else {}
    return detection.chosen(families, {denoiser.name: config} if config else {})


async def _config(places: Places, path: str, parser: Parser) -> dict[str, Any]:
    """What it says in plain words and numbers; nothing of one that is missing or bad."""
    try:
        text = await places.get(path, most_bytes=MAX_CONFIG_BYTES)
        return (await parser.parse("plain", [text]))["fields"] if text else {}
    except (Unreadable, StoreError):
        return {}


async def _unfit(places: Places, parser: Parser, family: Family | None) -> str | None:
    """Why the base is not trained: what it predicts."""
    what = objectives.problem(await read_objective(places, parser), "lorafleet" if family is None else family.name)
    return None if what is None else f"base_model.uri: {places.uri_of(objectives.SCHEDULER_CONFIG)} {what}"


async def read_shapes(store: Store, uri: str, parser: Parser, family: Family, parts: Mapping[str, str] = NO_PARTS) -> BaseShapes:
    """The shapes of the base at `uri`; `parts` are those that lie elsewhere. Raises Unreadable when its files are missing or bad, else
    what the store raises."""
    places = Places(store, uri, parts)
    denoiser, others = family.denoiser, [family.autoencoder, *family.text_encoders]
    headers = [await _header_of(places, part.name, parser) for part in (denoiser, *others)]
    paths = (denoiser.config, family.autoencoder.config)
    configs = [await places.get(config, most_bytes=MAX_CONFIG_BYTES) for config in paths]
    needed = zip((f"{denoiser.name}/*.safetensors", *paths), (headers[0], *configs), strict=True)
    if missing := [name for name, data in needed if not data]:
        raise Unreadable(f"{', '.join(missing)}: missing, or not what its name says")
    return _shapes(await parser.parse("shapes", [_told(family), *(data or b"" for data in (headers[0], *configs, *headers[1:]))]))


def _told(family: Family) -> bytes:
    """What the parser must know of the family: it knows none."""
    others = [None, *(part.name for part in family.text_encoders)]
    large = [False, *(part.is_large for part in family.text_encoders)]
    configs = {"denoiser_config": family.denoiser.config, "autoencoder_config": family.autoencoder.config}
    layers = {"first_layer": family.first_layer, "levels": family.autoencoder.levels}
    return json.dumps({**configs, **layers, "others": others, "large": large}).encode()


async def read_objective(places: Places, parser: Parser) -> object:
    """What the base predicts: the word of its scheduler, or what stands there instead of one. A config that is missing, or is none,
    is the trainer's to tell. Raises what the store raises."""
    try:
        config = await places.get(objectives.SCHEDULER_CONFIG, most_bytes=MAX_CONFIG_BYTES)
        return (await parser.parse("scheduler", [config])).get(objectives.FIELD, objectives.DEFAULT) if config else objectives.DEFAULT
    except (Unreadable, StoreError):
        return objectives.DEFAULT


def _shapes(found: dict[str, Any]) -> BaseShapes:
    text_layers = {part: _layers(layers) for part, layers in found.pop("text_layers").items()}
    return BaseShapes(layers=_layers(found.pop("layers")), text_layers=text_layers, **found)


def _layers(found: dict[str, list[int]]) -> dict[str, Shape]:
    return {name: tuple(shape) for name, shape in found.items()}


async def _header_of(places: Places, part: str, parser: Parser) -> bytes:
    """Of the file that the trainer would take, or of its shards; nothing when there is none. Single files first: they are the usual
    case, and a part is of one shape whichever way it is stored."""
    for name in single_files(part):
        if await places.exists(name):
            return await _header(places, name)
    for name in indices(part):
        if index := await places.get(name, most_bytes=MAX_INDEX_BYTES):
            return await _headers_of_shards(places, part, index, parser)
    return b""


async def _headers_of_shards(places: Places, part: str, index: bytes, parser: Parser) -> bytes:
    """A list of their headers, together no longer than one file's. Raises LacksShards."""
    named = (await parser.parse("shards", [index]))["names"]
    names = named if all(SHARD.fullmatch(name) for name in named) else ()
    if lost := [name for name in names if not await places.exists(f"{part}/{name}")]:
        folder = places.uri_of(f"{part}/").rstrip("/")
        raise LacksShards(f"base_model.uri: the index in {folder} names {len(lost)} shards that are missing; upload them, or save it anew")
    headers, left = list[bytes](), MAX_HEADER_BYTES
    for name in names:
        header = await _header(places, f"{part}/{name}", left)
        left -= len(header)
        if not header:
            return b""
        headers.append(header)
    return b"[" + b",".join(headers) + b"]" if headers else b""


async def _header(places: Places, path: str, most_bytes: int = MAX_HEADER_BYTES) -> bytes:
    """The JSON that a safetensors file begins with; nothing when it is missing, or too long to be one."""
    length = int.from_bytes(await places.get_range(path, 0, 8) or b"", "little")
    return await places.get_range(path, 8, length) or b"" if 0 < length <= most_bytes else b""
