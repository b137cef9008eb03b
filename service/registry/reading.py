"""Finds adapters and their versions by name."""

from lorafleet.errors import NotFound
from service.core.resource_names import AdapterName
from service.db import adapters
from service.db.registry_models import AdapterRow, AdapterVersionRow
from service.db.transaction import Transaction


async def existing(tx: Transaction, name: AdapterName) -> AdapterRow:
    """The adapter, locked in a transaction that writes. Raises NotFound."""
    row = await adapters.by_name(tx, name.tenant, name.adapter_id)
    if row is None:
        raise NotFound(f"there is no adapter {name}", reason="ADAPTER_NOT_FOUND")
    return row


async def existing_number(tx: Transaction, adapter: AdapterRow, number: int) -> AdapterVersionRow:
    """The adapter's version of that number. Raises NotFound."""
    row = await adapters.version_of(tx, adapter, number)
    if row is None:
        raise NotFound(f"there is no version {adapter.name}/versions/{number}", reason="ADAPTER_VERSION_NOT_FOUND")
    return row
