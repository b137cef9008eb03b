"""Finds adapters and their versions by name."""

from lorafleet.errors import NotFound
from lorafleet.v1 import adapter_service_pb2 as pb
from service.core.resource_names import AdapterName, VersionName
from service.db import adapters
from service.db.database import Database
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction
from service.registry.messages import adapter_message, version_message


async def get_adapter(db: Database, name: AdapterName) -> pb.Adapter:
    """Raises NotFound."""
    async with db.snapshot() as tx:
        return adapter_message(await existing(tx, name))


async def get_version(db: Database, name: VersionName) -> pb.AdapterVersion:
    """With its files. Raises NotFound."""
    async with db.snapshot() as tx:
        row = await existing_version(tx, await existing(tx, name.adapter), name)
        return version_message(row, await adapters.files_of(tx, row))


async def existing(tx: Transaction, name: AdapterName) -> AdapterRow:
    """The adapter, locked in a transaction that writes. Raises NotFound."""
    row = await adapters.by_name(tx, name.tenant, name.adapter_id)
    if row is None:
        raise NotFound(f"there is no adapter {name}", reason="ADAPTER_NOT_FOUND")
    return row


async def existing_version(tx: Transaction, adapter: AdapterRow, name: VersionName) -> AdapterVersionRow:
    """Raises NotFound."""
    row = await adapters.version_of(tx, adapter, name.number)
    if row is None:
        raise NotFound(f"there is no version {name}", reason="ADAPTER_VERSION_NOT_FOUND")
    return row
