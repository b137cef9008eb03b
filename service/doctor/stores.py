"""Checks the store as the server and its runs use it: write, read back, the conditional write that commits artifacts, delete, its clock."""

import asyncio
import secrets
import time
from collections.abc import Sequence

from lorafleet.contract.layout import join
from lorafleet.errors import LorafleetError
from service.doctor.clocks import skew
from service.doctor.findings import Finding, failed, ok
from service.store.client import S3Backing, Store


async def check_store(name: str, uri: str) -> Sequence[Finding]:
    """Leaves nothing behind, unless the delete is what fails."""
    store, probe, data = Store(), join(uri, f".doctor-{secrets.token_hex(4)}"), secrets.token_bytes(64)
    try:
        await store.put(probe, data)
        if await store.get(probe) != data:
            return [failed(name, f"{uri}: what is read back is not what was written", "do not use this store: it would lose artifacts")]
        conditional = await _conditional(store, name, probe)
        await store.delete(probe)
        if await store.get(probe) is not None:
            return [failed(name, f"{uri}: a deleted object is still there", "check versioning and locks of the bucket")]
    except LorafleetError as error:
        return [failed(name, error.message, "fix what the message says; lorafleet serve needs to list, read, write and delete there")]
    return [ok(name, f"{uri}: written, read back, deleted"), *conditional, *await _clock(name, uri)]


async def _conditional(store: Store, name: str, probe: str) -> Sequence[Finding]:
    """If-None-Match: two attempts that finish at the same moment must not both commit."""
    if not await store.put_if_absent(probe, b""):
        return [ok(name, "a write that must be the first is refused when there is one (If-None-Match)")]
    message = "the store overwrites although it was told If-None-Match: *"
    return [failed(name, message, "use a store that honours it (AWS S3, MinIO, Ceph do); artifacts are committed by it")]


async def _clock(name: str, uri: str) -> Sequence[Finding]:
    if not uri.startswith("s3://"):
        return []

    def ask() -> tuple[float, float]:
        began = time.time()
        theirs = S3Backing().time_s(uri)
        return theirs + 0.5, (began + time.time()) / 2  # whole seconds: half a one is its middle

    theirs, ours = await asyncio.to_thread(ask)
    return [skew(f"{name} clock", theirs - ours, precise_s=1.5)]
