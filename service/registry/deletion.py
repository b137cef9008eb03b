"""Deletes adapters and versions, which can be had back for a while, and takes that back. What an alias points to stays."""

from lorafleet.errors import FailedPrecondition
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.authorization import may_end
from service.access.identity import Identity
from service.control.adapter_facts import VersionState
from service.control.retention import KEEP_DELETED, MAX_DAYS, MAX_KEPT, Rule
from service.control.webhooks import EventKind
from service.core.etags import check_etag
from service.core.resource_names import AdapterName, VersionName, invalid
from service.db import adapters, aliases
from service.db.database import Database
from service.registry.messages import adapter_etag, adapter_message, version_message
from service.registry.reading import existing, existing_number

PRODUCTION = "production"


async def set_retention(db: Database, name: AdapterName, rule: Rule, etag: str) -> pb.Adapter:
    """Raises NotFound, InvalidInput and Aborted."""
    for field, value, most in (("keep_newest", rule.keep_newest, MAX_KEPT), ("keep_days", rule.keep_days, MAX_DAYS)):
        if not 0 <= value <= most:
            raise invalid(f"adapter.retention.{field}", f"{value} is not 0 to {most:,}")
    async with db.transaction() as tx:
        row = await existing(tx, name)
        check_etag(row.name, adapter_etag(row), etag)
        row.keep_newest, row.keep_days, row.retain_at = rule.keep_newest, rule.keep_days, tx.now
        adapters.touch(tx, row)
        return adapter_message(row, await aliases.of_adapter(tx, row))


async def delete_adapter(db: Database, name: AdapterName, etag: str, caller: Identity) -> pb.Adapter:
    """Repeating it is harmless. Raises NotFound, PermissionDenied for others' versions, Aborted, and FailedPrecondition for what is in
    production."""
    async with db.transaction() as tx:
        row = await existing(tx, name)
        pointing = await aliases.of_adapter(tx, row)
        if row.delete_time is None:
            check_etag(row.name, adapter_etag(row), etag)
            for creator in await adapters.creators(tx, row):
                may_end(caller, creator)
            if PRODUCTION in pointing:
                raise _in_use(f"{row.name}/versions/{pointing[PRODUCTION]}", [PRODUCTION])
            row.delete_time, row.purge_at = tx.now, tx.now + KEEP_DELETED
            adapters.touch(tx, row)
            adapters.tell(tx, row, EventKind.ADAPTER_DELETED, by=caller.principal)
        return adapter_message(row, pointing)


async def undelete_adapter(db: Database, name: AdapterName, caller: Identity) -> pb.Adapter:
    """Repeating it is harmless. Raises PermissionDenied for others' versions, and NotFound once it is purged."""
    async with db.transaction() as tx:
        row = await existing(tx, name)
        for creator in await adapters.creators(tx, row):
            may_end(caller, creator)
        if row.delete_time is not None:
            adapters.revive(row)
            adapters.touch(tx, row)
            adapters.tell(tx, row, EventKind.ADAPTER_UNDELETED, by=caller.principal)
        return adapter_message(row, await aliases.of_adapter(tx, row))


async def delete_version(db: Database, name: VersionName, caller: Identity) -> pb.AdapterVersion:
    """Repeating it is harmless. Raises NotFound, PermissionDenied for another's, and FailedPrecondition for one with an alias."""
    async with db.transaction() as tx:
        adapter = await existing(tx, name.adapter)
        row = await existing_number(tx, adapter, name.number)
        pointing = await aliases.of_adapter(tx, adapter)
        if row.delete_time is None:
            may_end(caller, row.created_by)
            if its_own := [alias for alias, number in pointing.items() if number == row.number]:
                raise _in_use(row.name, its_own)
            adapters.mark_deleted(tx, row, caller.principal)
            await adapters.refresh(tx, adapter)
        return version_message(row, pointing, await adapters.files_of(tx, row))


async def undelete_version(db: Database, name: VersionName, caller: Identity) -> pb.AdapterVersion:
    """Repeating it is harmless. Raises NotFound, PermissionDenied for another's, and FailedPrecondition once it is purged."""
    async with db.transaction() as tx:
        adapter = await existing(tx, name.adapter)
        row = await existing_number(tx, adapter, name.number)
        may_end(caller, row.created_by)
        if row.state == VersionState.PURGED.value:
            raise FailedPrecondition(f"{row.name} is purged: its files are gone", reason="ADAPTER_VERSION_PURGED")
        if row.delete_time is not None:
            row.delete_time = row.purge_at = None
            adapters.tell_of(tx, row, EventKind.VERSION_UNDELETED, by=caller.principal)
            await adapters.refresh(tx, adapter)
        return version_message(row, await aliases.of_adapter(tx, adapter), await adapters.files_of(tx, row))


def _in_use(version: str, pointing: list[str]) -> FailedPrecondition:
    reason = "IN_PRODUCTION" if PRODUCTION in pointing else "HAS_ALIAS"
    return FailedPrecondition(f"{version} is what {' and '.join(pointing)} stands for; move or delete that alias first", reason=reason)
