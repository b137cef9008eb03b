"""Removes what was deleted long enough ago for good: of an adapter all versions, of a version its files.

A version is marked as purged first, so that nobody has it back; then its manifest goes, without which there is no artifact, and then the
files that it named. Only files that the service itself had placed are removed, and only those that the manifest named when it was read.
"""

from sqlalchemy import delete, func, literal, select, update

from lorafleet.contract.layout import MANIFEST, join
from service.control.adapter_facts import VersionState
from service.control.webhooks import EventKind
from service.core.concurrency import bounded
from service.db import adapters, locks
from service.db.registry_models import AdapterAliasRow, AdapterRow, AdapterVersionRow
from service.db.tenants import store_credentials_of
from service.db.types import UtcTime
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools

AT_ONCE = 8  # files


async def purge_once(tools: Tools) -> bool:
    """Purge the adapter or the version that is due first. False when none is."""
    return await _purge_adapter(tools) or await _purge_version(tools)


async def _purge_adapter(tools: Tools) -> bool:
    async with tools.db.transaction() as tx:
        due = select(AdapterRow).where(AdapterRow.purge_at <= tx.now).order_by(AdapterRow.purge_at).limit(1)
        adapter = await tx.session.scalar(tx.locked(due, skip=True))
        if adapter is None:
            return False
        left = (AdapterVersionRow.adapter_uid == adapter.uid, AdapterVersionRow.state != VersionState.PURGED.value)
        deleted = func.coalesce(AdapterVersionRow.delete_time, literal(tx.now, UtcTime()))
        await tx.session.execute(update(AdapterVersionRow).where(*left).values(delete_time=deleted, purge_at=tx.now))
        await tx.session.execute(delete(AdapterAliasRow).where(AdapterAliasRow.adapter_uid == adapter.uid))
        adapter.purge_at = adapter.retain_at = None
        adapter.keep_newest = adapter.keep_days = adapter.newest_version = 0
        adapters.touch(tx, adapter)
        adapters.tell(tx, adapter, EventKind.ADAPTER_PURGED)
    return True


async def _purge_version(tools: Tools) -> bool:
    async with tools.db.transaction() as tx:
        due = AdapterVersionRow.purge_at <= tx.now
        row = await locks.take(tx, AdapterVersionRow, due, first=AdapterVersionRow.purge_at, lock_for_s=LOCK_S)
        if row is None:
            return False
        row.state, row.reason, row.message, row.due_at = VersionState.PURGED.value, "", "", None
        files = await adapters.files_of(tx, row)
    async with locked_rows.own(tools, "purge", row, due="purge_at"):
        async with locks.kept(tools.db, [row], LOCK_S, ACTION_S):
            await _remove(tools, row, list(files))
        async with tools.db.transaction() as tx:
            if (held := await locks.still_held(tx, row)) is not None:
                held.files, held.size_bytes, held.purge_at = None, None, None
                adapters.tell_of(tx, held, EventKind.VERSION_PURGED)
                locks.release(held)
    return True


async def _remove(tools: Tools, row: AdapterVersionRow, files: list[str]) -> None:
    """Nothing of a version whose manifest was never read, or is not what was committed: what lies there may be another's."""
    if not row.is_ours or not files:
        return
    store = tools.store.of(await store_credentials_of(tools.db, row.tenant)).within(row.root_uri)
    await store.delete(join(row.artifact_uri, MANIFEST))
    await bounded(lambda path: store.delete(join(row.artifact_uri, path)), files, AT_ONCE)
