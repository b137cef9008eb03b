"""Reads the manifests of new adapter versions: their files, and what they were made on, which no report tells.

A version is there from the moment in which its job succeeds; this tells what is in it. Jobs that a server of a version before has let
succeed get their versions here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorafleet.contract.layout import MANIFEST, join
from lorafleet.errors import InvalidInput
from service.control.adapter_facts import VersionState
from service.control.adapter_parents import Parent, together
from service.control.webhooks import EventKind
from service.db import adapters, locks
from service.db.models import JobRow
from service.db.registry_models import AdapterVersionRow
from service.db.tenants import store_credentials_of
from service.db.transaction import Transaction
from service.db.types import storable
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools
from service.runs.progress import progress_of
from service.untrusted.parsing import Unreadable

MAX_FILES = 1000  # of one version: what a message shows of it has a bound
MAX_BYTES = 2**62  # that a database's column holds
FIGURES = ("held_out_loss_base", "held_out_loss")  # of a job's progress


@dataclass(frozen=True, kw_only=True)
class Content:
    """What was found in a version's folder."""

    state: VersionState
    reason: str = ""
    message: str = ""
    files: Mapping[str, Any] = field(default_factory=dict[str, Any])
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    parents: Sequence[Parent] = ()


async def versions_once(tools: Tools) -> bool:
    """Read the manifest that has waited longest, or register jobs of before. False when there is neither."""
    async with tools.db.transaction() as tx:
        due = (AdapterVersionRow.due_at <= tx.now, AdapterVersionRow.manifest_sha256 != "")  # others: `imports.py`
        row = await locks.take(tx, AdapterVersionRow, *due, first=AdapterVersionRow.due_at, lock_for_s=LOCK_S)
        if row is None:
            return await adapters.register_older(tx) > 0
    async with locked_rows.own(tools, "versions", row):
        await _describe_taken(tools, row)
    return True


async def _describe_taken(tools: Tools, row: AdapterVersionRow) -> None:
    async with locks.kept(tools.db, [row], LOCK_S, ACTION_S):
        content = await _content(tools, row)
    async with tools.db.transaction() as tx:
        adapter = await adapters.locked(tx, row.adapter_uid)
        held = await locks.still_held(tx, row)
        if held is None:
            return
        quality = {**await _of_its_job(tx, held), **content.quality}
        _apply(held, content, quality)
        adapters.describe(tx, adapter, held)
        kind = EventKind.VERSION_READY if content.state is VersionState.READY else EventKind.VERSION_DAMAGED
        adapters.tell_of(tx, held, kind, reason=held.reason)
        locks.release(held)


async def _content(tools: Tools, row: AdapterVersionRow) -> Content:
    """Raises Unavailable, and what else a store refuses with: it is tried again, for that says nothing of the version."""
    store = tools.store.of(await store_credentials_of(tools.db, row.tenant)).within(row.root_uri)
    async with tools.parser.lanes.of(row.tenant):
        text = await store.get(join(row.artifact_uri, MANIFEST))
        if text is None or hashlib.sha256(text).hexdigest() != row.manifest_sha256:
            what = "has no manifest.json" if text is None else "has another manifest.json"
            return _damaged("ARTIFACT_CHANGED", f"{row.artifact_uri} {what} than the one that was committed")
        try:
            told = await tools.parser.artifact(text)
        except (Unreadable, InvalidInput) as error:
            return _damaged("INVALID_MANIFEST", f"{row.artifact_uri}/{MANIFEST}: {error.message}")
    files = {path: file.model_dump() for path, file in told.manifest.files.items()}
    if len(files) > MAX_FILES:
        return _damaged("TOO_MANY_FILES", f"{row.artifact_uri} has {len(files):,} files; a version has at most {MAX_FILES:,}")
    return Content(state=VersionState.READY, files=files, words=told.words, quality=told.quality, parents=told.parents)


def _damaged(reason: str, message: str) -> Content:
    return Content(state=VersionState.DAMAGED, reason=reason, message=message)


async def _of_its_job(tx: Transaction, row: AdapterVersionRow) -> dict[str, float]:
    job = None if row.job_uid is None else await tx.session.get(JobRow, row.job_uid)
    progress = progress_of(None if job is None else job.progress)
    return {name: getattr(progress, name) for name in FIGURES if progress.HasField(name)}


def _apply(row: AdapterVersionRow, content: Content, quality: Mapping[str, float]) -> None:
    row.state, row.reason, row.message, row.due_at = content.state.value, content.reason, storable(content.message), None
    if content.state is VersionState.READY:
        row.files = dict(content.files)
        row.size_bytes = min(sum(file["size_bytes"] for file in content.files.values()), MAX_BYTES)
        row.family = storable(content.words.get("family", "")) or row.family
        row.base_digest = storable(content.words.get("base_digest", ""))
        row.parents = together(row.tenant, row.parents or [], content.parents) or None
    row.quality = dict(quality)
