"""Finds versions of adapters by name, many at once: by their numbers, or by the aliases that point to them now."""

from collections.abc import Collection

from sqlalchemy import select, tuple_

from lorafleet.errors import NotFound
from service.control.adapter_facts import VersionState
from service.core.resource_names import AliasName, VersionName
from service.db.adapters import NOT_PURGED
from service.db.registry_models import AdapterAliasRow, AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction

Reference = VersionName | AliasName
Found = tuple[AdapterRow, AdapterVersionRow]


async def find(tx: Transaction, tenant: str, names: Collection[Reference]) -> dict[Reference, Found]:
    """Those of the tenant's that there are; what another tenant has is not found."""
    own = [name for name in names if name.adapter.tenant == tenant]
    if not own:
        return {}
    numbered = {(name.adapter.adapter_id, name.number) for name in own if isinstance(name, VersionName)}
    called = {(name.adapter.adapter_id, name.alias) for name in own if isinstance(name, AliasName)}
    by_number = {(row.adapter_id, row.number): (adapter, row) for adapter, row in await _numbered(tx, tenant, numbered)}
    by_alias = {(row.adapter_id, alias): (adapter, row) for alias, adapter, row in await _called(tx, tenant, called)}
    found = {name: _of(name, by_number, by_alias) for name in own}
    return {name: each for name, each in found.items() if each is not None}


def _of(name: Reference, by_number: dict[tuple[str, int], Found], by_alias: dict[tuple[str, str], Found]) -> Found | None:
    adapter_id = name.adapter.adapter_id
    return by_number.get((adapter_id, name.number)) if isinstance(name, VersionName) else by_alias.get((adapter_id, name.alias))


async def _numbered(tx: Transaction, tenant: str, keys: Collection[tuple[str, int]]) -> list[Found]:
    if not keys:
        return []
    query = select(AdapterRow, AdapterVersionRow).join(AdapterVersionRow, AdapterVersionRow.adapter_uid == AdapterRow.uid)
    which = tuple_(AdapterRow.adapter_id, AdapterVersionRow.number).in_(sorted(keys))
    return [(row[0], row[1]) for row in await tx.session.execute(query.where(AdapterRow.tenant == tenant, NOT_PURGED, which))]


async def _called(tx: Transaction, tenant: str, keys: Collection[tuple[str, str]]) -> list[tuple[str, AdapterRow, AdapterVersionRow]]:
    if not keys:
        return []
    points_to = (AdapterVersionRow.adapter_uid == AdapterAliasRow.adapter_uid, AdapterVersionRow.number == AdapterAliasRow.number)
    query = select(AdapterAliasRow.alias, AdapterRow, AdapterVersionRow)
    query = query.join(AdapterRow, AdapterRow.uid == AdapterAliasRow.adapter_uid).join(AdapterVersionRow, points_to[0] & points_to[1])
    which = tuple_(AdapterRow.adapter_id, AdapterAliasRow.alias).in_(sorted(keys))
    return [(row[0], row[1], row[2]) for row in await tx.session.execute(query.where(AdapterRow.tenant == tenant, NOT_PURGED, which))]


def not_found(field: str, name: Reference, tenant: str) -> NotFound:
    """There is no such version, or it is another tenant's."""
    message = f"{field}: there is no {name} of tenants/{tenant}; `lorafleet adapters versions` shows which there are"
    return NotFound(message, reason="ADAPTER_VERSION_NOT_FOUND")


def unusable(found: Found) -> tuple[str, str] | None:
    """(what the version is, why nothing can be done with it now); None: it can be read."""
    adapter, version = found
    if version.state == VersionState.PURGED.value:
        return "PURGED", "is purged: its files are gone"
    if adapter.delete_time is not None or version.delete_time is not None:
        return "DELETED", "is deleted; undelete it first"
    if version.state == VersionState.DAMAGED.value:
        return "DAMAGED", f"is damaged: {version.message}"
    return None if version.manifest_sha256 else ("PENDING", "is not copied yet; try again when it is READY")
