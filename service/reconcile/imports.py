"""Copies adapters that were made elsewhere into the registry's own folder, and looks at every number on the way.

The copy is what was looked at: whatever becomes of the source, a version is READY with the bytes whose digests its manifest has. A step
that is repeated writes the same bytes again.
"""

import asyncio
import hashlib
import json
from dataclasses import dataclass, field

from lorafleet.adapter_files.finite import all_finite
from lorafleet.contract import artifact_manifest
from lorafleet.contract.layout import MANIFEST, join
from lorafleet.errors import InvalidInput
from service.control.adapter_facts import VersionState
from service.control.webhooks import EventKind
from service.db import adapters, locks
from service.db.registry_models import AdapterVersionRow
from service.db.tenants import store_credentials_of
from service.db.types import storable
from service.reconcile import locked_rows
from service.reconcile.context import LOCK_S, Tools
from service.store.adapter_sources import MAX_BYTES, Source, source_of
from service.store.client import Store
from service.untrusted.adapter_headers import AdapterHeader, read_header
from service.untrusted.parsing import Unreadable

COPY_WITHIN_S = 600.0
MAX_CONFIG_BYTES = 2**20


class NotTaken(InvalidInput):
    """The file is no adapter, or not the one that was meant: trying again does not mend it."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The files of a copy, and its manifest."""

    manifest: bytes
    header: AdapterHeader
    files: dict[str, bytes] = field(repr=False)


async def import_once(tools: Tools) -> bool:
    """Copy the adapter that has waited longest. False when none does."""
    async with tools.db.transaction() as tx:
        due = (AdapterVersionRow.due_at <= tx.now, AdapterVersionRow.manifest_sha256 == "")
        row = await locks.take(tx, AdapterVersionRow, *due, first=AdapterVersionRow.due_at, lock_for_s=LOCK_S)
        if row is None:
            return False
    async with locked_rows.own(tools, "imports", row):
        async with locks.kept(tools.db, [row], LOCK_S, COPY_WITHIN_S):
            try:
                copied, error = await _copied(tools, row), None
            except NotTaken as not_taken:
                copied, error = None, not_taken
        await _apply(tools, row, copied, error)
    return True


async def _apply(tools: Tools, row: AdapterVersionRow, copied: Copied | None, error: NotTaken | None) -> None:
    async with tools.db.transaction() as tx:
        adapter = await adapters.locked(tx, row.adapter_uid)
        held = await locks.still_held(tx, row)
        if held is None:
            return
        held.due_at = None
        if copied is not None:
            manifest = artifact_manifest.parse(copied.manifest)
            held.state, held.manifest_sha256 = VersionState.READY.value, hashlib.sha256(copied.manifest).hexdigest()
            held.files = {path: file.model_dump() for path, file in manifest.files.items()}
            held.size_bytes = manifest.size_bytes
            held.method, held.rank = copied.header.description.method, copied.header.description.rank
        elif error is not None:
            held.state, held.reason, held.message = VersionState.DAMAGED.value, error.reason, storable(error.message)
            held.size_bytes = None
        adapters.describe(tx, adapter, held)
        adapters.tell_of(tx, held, EventKind.VERSION_READY if error is None else EventKind.VERSION_DAMAGED, reason=held.reason)
        locks.release(held)


async def _copied(tools: Tools, row: AdapterVersionRow) -> Copied:
    """Raises NotTaken; Unavailable and what else a store refuses with, after which it is tried again."""
    store, source = tools.store.of(await store_credentials_of(tools.db, row.tenant)), source_of(row.source_uri or "")
    files = {name: await _read(store, source, name) for name in source.names}
    weights = files[source.weights]
    header = await _checked(tools, row, source, weights, files.get(source.config or ""))
    if broken := await asyncio.to_thread(_broken, header, weights):
        raise NotTaken(f"{source.weights}: {broken} has numbers that are not finite (NaN or infinite)", reason="NOT_FINITE")
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in files.items()}
    made_of = {"version": row.name, "source": row.source_uri, "format_of_file": header.description.format, "family": row.family}
    manifest = json.dumps({"format": "lorafleet-artifact-1", **made_of, "files": listed}, indent=2).encode()
    own = store.within(row.root_uri)
    for name, data in files.items():
        await own.put(join(row.artifact_uri, name), data)
    await own.put(join(row.artifact_uri, MANIFEST), manifest)
    return Copied(manifest=manifest, header=header, files=files)


async def _read(store: Store, source: Source, name: str) -> bytes:
    uri = join(source.folder, name)
    data = await store.within(source.folder).get(uri, most_bytes=MAX_BYTES if name == source.weights else MAX_CONFIG_BYTES)
    if data is None:
        raise NotTaken(f"there is no {uri} any more", reason="SOURCE_NOT_FOUND")
    return data


async def _checked(tools: Tools, row: AdapterVersionRow, source: Source, weights: bytes, config: bytes | None) -> AdapterHeader:
    found = await asyncio.to_thread(lambda: hashlib.sha256(weights).hexdigest())
    if row.source_sha256 not in ("", found):
        raise NotTaken(f"{source.weights} has the SHA-256 {found}, not {row.source_sha256}", reason="DIGEST_MISMATCH")
    length = int.from_bytes(weights[:8], "little")
    try:
        async with tools.parser.lanes.of(row.tenant):
            if config is not None:
                await tools.parser.parse("plain", [config])
            return await read_header(tools.parser, weights[8 : 8 + length], len(weights) - 8 - length, row.family)
    except (Unreadable, InvalidInput) as error:
        raise NotTaken(f"{source.weights}: {error.message}", reason=error.reason) from None


def _broken(header: AdapterHeader, weights: bytes) -> str:
    """The first tensor with a number that is not finite; empty: there is none."""
    data = memoryview(weights)[8 + int.from_bytes(weights[:8], "little") :]
    return next((name for name, each in header.tensors.items() if not all_finite(each.dtype, data[each.begin : each.end])), "")
