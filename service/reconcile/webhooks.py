"""Tells webhooks what happens to adapters: each its tenant's events, one after another, each again until it is taken.

What a webhook has taken is written before the next event is sent, so a process that dies repeats one event at most; its id tells.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import datetime

from lorafleet.backoff import doubled_s, spread_s
from service.control import webhooks as decisions
from service.control.webhooks import Progress, WebhookState
from service.db import adapter_events, audit, locks, webhooks
from service.db.audit import AuditEntry
from service.db.transaction import Transaction
from service.db.webhook_models import AdapterEventRow, WebhookRow
from service.endpoints import signatures
from service.endpoints.delivery import NotDelivered
from service.reconcile.context import ACTION_S, LOCK_S, Tools

AT_ONCE = 16  # webhooks, each with its own event: one that is slow holds up none for longer than a delivery may take
LOOKED_AT = 100  # events of other kinds that are passed over in one step
PRINCIPAL = "service:webhooks"  # in the audit log

log = logging.getLogger(__name__)


async def deliver_once(tools: Tools) -> bool:
    """The next event of the webhooks that have waited longest. False when there is none."""
    async with tools.db.transaction() as tx:
        rows = await locks.take_some(tx, WebhookRow, *webhooks.due(tx), first=WebhookRow.due_at, lock_for_s=LOCK_S, most=AT_ONCE)
        waiting = [(row, await adapter_events.after(tx, row.tenant, row.cursor, limit=LOOKED_AT)) for row in rows]
        now = tx.now
    if not waiting:
        return False
    async with locks.kept(tools.db, rows, LOCK_S, ACTION_S):
        progresses = await asyncio.gather(*(_deliver(tools, row, events, now) for row, events in waiting))
    async with tools.db.transaction() as tx:
        after = {row.uid: progress for row, progress in zip(rows, progresses, strict=True)}
        for held in await locks.those_held(tx, rows):
            _apply(tx, held, after[held.uid])
            locks.release(held)
    return True


async def _deliver(tools: Tools, row: WebhookRow, events: Sequence[AdapterEventRow], now: datetime) -> Progress:
    """What becomes of it by its next event."""
    progress = webhooks.value(row)
    for event in events:
        if row.kinds and event.kind not in row.kinds:
            progress = decisions.passed(progress, event.seq)
            continue
        body = body_of(event)
        timestamp = int(now.timestamp())
        headers = {
            signatures.EVENT_ID: event_id(event),
            signatures.TIMESTAMP: str(timestamp),
            signatures.SIGNATURE: signatures.signature(row.secret, timestamp, body),
        }
        try:
            await tools.endpoints.send(row.url, body, headers)
        except NotDelivered as error:
            wait_s = spread_s(doubled_s(decisions.FIRST_WAIT_S, decisions.MAX_WAIT_S, row.failures))
            return decisions.failed(progress, error.reason, error.message, now, wait_s)
        return decisions.taken(progress, event.seq, now)
    return progress


def body_of(event: AdapterEventRow) -> bytes:
    """The event as endpoints get it."""
    tenant = f"tenants/{event.tenant}"
    what = {"id": event_id(event), "type": event.kind, "time": event.time.isoformat(), "tenant": tenant}
    return json.dumps({**what, "adapter": f"{tenant}/adapters/{event.adapter_id}", "data": event.data}).encode()


def event_id(event: AdapterEventRow) -> str:
    """The same each time that it is sent."""
    return f"event-{event.seq}"


def _apply(tx: Transaction, row: WebhookRow, progress: Progress) -> None:
    webhooks.save(tx, row, progress)
    if progress.state is WebhookState.PAUSED:
        log.warning("%s is paused: %s", row.name, progress.message)
        entry = AuditEntry(tenant=row.tenant, principal=PRINCIPAL, method="pause", resource=row.name, peer="")
        audit.append(tx, entry, code="UNAVAILABLE", reason=progress.reason)
