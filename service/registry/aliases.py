"""Moves aliases of adapters: a compare-and-set under the lock of the adapter, so that of two at once one hears what the other did."""

from dataclasses import dataclass

from lorafleet.errors import Aborted, FailedPrecondition, NotFound
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity
from service.control.adapter_facts import VersionState
from service.control.webhooks import EventKind
from service.core.etags import check_etag
from service.core.resource_names import AliasName, VersionName, invalid
from service.db import adapters, aliases, audit
from service.db.database import Database
from service.db.registry_models import AdapterAliasRow, AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction
from service.registry.messages import alias_etag, alias_message
from service.registry.reading import existing, existing_number


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """Where an alias is to point, and where it must point now."""

    name: AliasName
    number: int
    expected: int | None = None  # 0: nowhere; None: anywhere
    etag: str = ""


async def set_alias(db: Database, move: AliasMove, caller: Identity) -> pb.AdapterAlias:
    """Raises NotFound, FailedPrecondition for a version that cannot be used, and Aborted for an alias that points elsewhere."""
    async with db.transaction() as tx:
        adapter = await existing(tx, move.name.adapter)
        version = await existing_number(tx, adapter, move.number)
        row = await aliases.get(tx, adapter, move.name.alias)
        if row is None or row.number != move.number:
            _check_expected(move, row)
            _check_usable(adapter, version)
            row = _moved(tx, adapter.uid, move, row, caller)
            told = {"alias": row.alias, "previous_version": row.previous, "by": caller.principal}
            adapters.tell_of(tx, version, EventKind.ALIAS_MOVED, **told)
            adapters.touch(tx, adapter)
            adapter.retain_at = tx.now  # no alias points to the one before
        return alias_message(row, move.name)


async def delete_alias(db: Database, name: AliasName, etag: str, caller: Identity) -> pb.DeleteAdapterAliasResponse:
    """Raises NotFound without such an adapter, and Aborted for another etag."""
    async with db.transaction() as tx:
        adapter = await existing(tx, name.adapter)
        row = await aliases.get(tx, adapter, name.alias)
        if row is not None:
            check_etag(str(name), alias_etag(row), etag)
            audit.about(f"{name} (was versions/{row.number})")
            await tx.session.delete(row)
            adapters.tell(tx, adapter, EventKind.ALIAS_DELETED, alias=row.alias, previous_version=row.number, by=caller.principal)
            adapters.touch(tx, adapter)
            adapter.retain_at = tx.now
    return pb.DeleteAdapterAliasResponse()


async def resolved(tx: Transaction, name: VersionName | AliasName) -> AdapterVersionRow:
    """The version that is named by its number or by an alias. Raises NotFound."""
    adapter = await existing(tx, name.adapter)
    if isinstance(name, VersionName):
        return await existing_number(tx, adapter, name.number)
    row = await aliases.get(tx, adapter, name.alias)
    if row is None:
        known = ", ".join(await aliases.of_adapter(tx, adapter)) or "none"
        raise NotFound(f"{name.adapter} has no alias {name.alias}; it has {known}", reason="ADAPTER_ALIAS_NOT_FOUND")
    return await existing_number(tx, adapter, row.number)


def _check_expected(move: AliasMove, row: AdapterAliasRow | None) -> None:
    now = 0 if row is None else row.number
    if move.expected is not None and move.expected != now:
        where = f"points to versions/{now}" if now else "does not exist"
        wanted = f"versions/{move.expected}" if move.expected else "nowhere"
        raise Aborted(f"{move.name} {where} now, not {wanted}: somebody has moved it; look again", reason="ALIAS_MOVED")
    if move.etag and row is None:
        raise Aborted(f"{move.name} does not exist now; look again", reason="ALIAS_MOVED")
    if row is not None:
        check_etag(str(move.name), alias_etag(row), move.etag)


def _check_usable(adapter: AdapterRow, version: AdapterVersionRow) -> None:
    for row, what in ((adapter, "ADAPTER"), (version, "ADAPTER_VERSION")):
        if row.delete_time is not None:
            raise FailedPrecondition(f"{row.name} is deleted; undelete it first", reason=f"{what}_DELETED")
    if not version.manifest_sha256 and version.state == VersionState.PENDING.value:
        raise FailedPrecondition(f"{version.name} is not copied yet; try again when it is READY", reason="ADAPTER_VERSION_PENDING")
    if version.state == VersionState.DAMAGED.value:
        raise FailedPrecondition(f"{version.name} is damaged: {version.message}", reason="ADAPTER_VERSION_DAMAGED")


def _moved(tx: Transaction, adapter_uid: str, move: AliasMove, row: AdapterAliasRow | None, caller: Identity) -> AdapterAliasRow:
    if row is None:
        row = AdapterAliasRow(adapter_uid=adapter_uid, alias=move.name.alias, number=0, version=0)
        tx.session.add(row)
    row.previous, row.number, row.version = row.number, move.number, row.version + 1
    row.updated_by, row.update_time = caller.principal, tx.now
    audit.about(f"{move.name} = versions/{move.number}" + (f" (was versions/{row.previous})" if row.previous else ""))
    return row


def check_number(number: int) -> int:
    """Raises InvalidInput."""
    if number < 1:
        raise invalid("version", f"{number} is no version's number: they begin with 1")
    return number
