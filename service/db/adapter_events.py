"""Keeps the log of what happens to adapters: written in the transaction that does it, in commit order, and read by webhooks."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, select, update

from service.db.models import ServiceRow
from service.db.transaction import Transaction
from service.db.webhook_models import AdapterEventRow, WebhookRow


async def append(tx: Transaction) -> None:
    """What this transaction has told of adapters. Right before commit, as `events.append`, whose sequence it is of."""
    if not tx.told:
        return
    advance = update(ServiceRow).values(last_seq=ServiceRow.last_seq + len(tx.told)).returning(ServiceRow.last_seq)
    last_seq = (await tx.session.execute(advance)).scalar_one()
    numbered = enumerate(tx.told, start=last_seq - len(tx.told) + 1)
    await tx.insert(AdapterEventRow, [{"seq": seq, "time": tx.now, **said} for seq, said in numbered])
    tx.changed = True


async def after(tx: Transaction, tenant: str, seq: int, *, limit: int) -> Sequence[AdapterEventRow]:
    """The tenant's next events behind `seq`, oldest first."""
    return await _after(tx, AdapterEventRow.tenant == tenant, AdapterEventRow.seq > seq, limit=limit)


async def after_in_all(tx: Transaction, seq: int, *, limit: int) -> Sequence[AdapterEventRow]:
    """The same, of all tenants."""
    return await _after(tx, AdapterEventRow.seq > seq, limit=limit)


async def _after(tx: Transaction, *which: ColumnElement[bool], limit: int) -> Sequence[AdapterEventRow]:
    query = select(AdapterEventRow).where(*which)
    return (await tx.session.scalars(query.order_by(AdapterEventRow.seq).limit(limit))).all()


async def forget(tx: Transaction, before: datetime) -> None:
    """Deletes events that are older, and that every webhook of their tenant has taken: nothing is skipped, however long one is paused."""
    waiting = exists().where(WebhookRow.tenant == AdapterEventRow.tenant, WebhookRow.cursor < AdapterEventRow.seq)
    gone = delete(AdapterEventRow).where(AdapterEventRow.time < before, ~waiting).returning(AdapterEventRow.seq)
    newest = max((await tx.session.scalars(gone)).all(), default=0)
    if newest:  # last, for all writers need that row
        higher = ServiceRow.adapter_floor_seq < newest
        await tx.session.execute(update(ServiceRow).where(higher).values(adapter_floor_seq=newest))
