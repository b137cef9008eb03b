"""Webhooks as users handle them: added, looked at, resumed and removed."""

from collections.abc import Sequence
from uuid import uuid4

from lorafleet.errors import AlreadyExists, InvalidInput, NotFound, ResourceExhausted
from lorafleet.v1 import webhook_service_pb2 as pb
from service.access.identity import Identity
from service.control import webhooks as decisions
from service.control.webhooks import EventKind, WebhookState
from service.core.resource_names import invalid
from service.db import events, webhooks
from service.db.database import Database
from service.db.transaction import Transaction
from service.db.webhook_models import WebhookRow
from service.endpoints import signatures
from service.endpoints.delivery import Sender
from service.tenancy.messages import time

MAX_WEBHOOKS = 20  # of a tenant: each event is sent to all of them


async def create(
    db: Database, endpoints: Sender, tenant: str, webhook_id: str, wanted: pb.Webhook, caller: Identity
) -> pb.CreateWebhookResponse:
    """Raises InvalidInput, AlreadyExists and ResourceExhausted."""
    kinds = _checked_kinds(wanted.event_types)
    try:
        await endpoints.check(wanted.url)
    except InvalidInput as error:
        raise invalid("webhook.url", error.message, reason=error.reason) from None
    secret = signatures.new_secret()
    async with db.transaction() as tx:
        if await webhooks.by_name(tx, tenant, webhook_id) is not None:
            raise AlreadyExists(f"there is a webhook tenants/{tenant}/webhooks/{webhook_id} already", reason="WEBHOOK_EXISTS")
        if await webhooks.count(tx, tenant) >= MAX_WEBHOOKS:
            raise ResourceExhausted(f"tenant {tenant} has {MAX_WEBHOOKS} webhooks, which is all it may have", reason="TOO_MANY_WEBHOOKS")
        row = WebhookRow(
            uid=uuid4().hex,
            tenant=tenant,
            webhook_id=webhook_id,
            url=wanted.url,
            secret=secret,
            kinds=kinds,
            state=WebhookState.ACTIVE.value,
            cursor=(await events.service(tx)).last_seq,
            due_at=tx.now,
            created_by=caller.principal,
            create_time=tx.now,
        )
        tx.session.add(row)
        await tx.session.flush()
        return pb.CreateWebhookResponse(webhook=message(row), secret=secret)


async def get(db: Database, tenant: str, webhook_id: str) -> pb.Webhook:
    """Raises NotFound."""
    async with db.snapshot() as tx:
        return message(await _existing(tx, tenant, webhook_id))


async def delete(db: Database, tenant: str, webhook_id: str) -> pb.DeleteWebhookResponse:
    async with db.transaction() as tx:
        row = await webhooks.by_name(tx, tenant, webhook_id)
        if row is not None:
            await tx.session.delete(row)
    return pb.DeleteWebhookResponse()


async def resume(db: Database, tenant: str, webhook_id: str) -> pb.Webhook:
    """Raises NotFound."""
    async with db.transaction() as tx:
        row = await _existing(tx, tenant, webhook_id)
        if row.state == WebhookState.PAUSED.value or row.failures:
            webhooks.save(tx, row, decisions.resumed(webhooks.value(row), tx.now))
        return message(row)


def message(row: WebhookRow) -> pb.Webhook:
    """The webhook as users see it: without its secret."""
    return pb.Webhook(
        name=row.name,
        url=row.url,
        event_types=row.kinds,
        state=f"WEBHOOK_STATE_{row.state}",
        reason=row.reason,
        message=row.message,
        failures=row.failures,
        retry_time=time(row.due_at) if row.failures and row.state == WebhookState.ACTIVE.value else None,
        deliver_time=time(row.deliver_time),
        created_by=row.created_by,
        create_time=time(row.create_time),
    )


def _checked_kinds(kinds: Sequence[str]) -> list[str]:
    for place, kind in enumerate(kinds):
        if kind not in set(EventKind):
            raise invalid(f"webhook.event_types[{place}]", f"{kind[:80]!r} is no type of event; known are {', '.join(EventKind)}")
    return sorted(set(kinds))


async def _existing(tx: Transaction, tenant: str, webhook_id: str) -> WebhookRow:
    row = await webhooks.by_name(tx, tenant, webhook_id)
    if row is None:
        raise NotFound(f"there is no webhook tenants/{tenant}/webhooks/{webhook_id}", reason="WEBHOOK_NOT_FOUND")
    return row
