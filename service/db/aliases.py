"""Reads aliases of adapters."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select

from service.db.registry_models import AdapterAliasRow, AdapterRow
from service.db.transaction import Transaction


async def get(tx: Transaction, adapter: AdapterRow, alias: str) -> AdapterAliasRow | None:
    """The adapter's alias of that name. To change it, lock the adapter."""
    which = (AdapterAliasRow.adapter_uid == adapter.uid, AdapterAliasRow.alias == alias)
    return await tx.session.scalar(tx.locked(select(AdapterAliasRow).where(*which)))


async def of_adapters(tx: Transaction, uids: Sequence[str]) -> dict[str, dict[str, int]]:
    """By adapter, the numbers of versions by the aliases that point to them: one query for all."""
    query = select(AdapterAliasRow).where(AdapterAliasRow.adapter_uid.in_(uids)).order_by(AdapterAliasRow.alias)
    found = defaultdict[str, dict[str, int]](dict)
    for row in await tx.session.scalars(query):
        found[row.adapter_uid][row.alias] = row.number
    return found


async def of_adapter(tx: Transaction, adapter: AdapterRow) -> dict[str, int]:
    """The numbers of its versions by the aliases that point to them."""
    return (await of_adapters(tx, [adapter.uid]))[adapter.uid]
