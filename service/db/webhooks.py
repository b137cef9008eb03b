"""Reads webhooks, and writes what a decision made of one."""

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import ColumnElement, exists, func, select

from service.control.webhooks import Progress, WebhookState
from service.db.transaction import Transaction
from service.db.types import storable
from service.db.webhook_models import AdapterEventRow, WebhookRow

_PLAIN = [field.name for field in fields(Progress) if field.name != "state"]  # columns of the same name


def value(row: WebhookRow) -> Progress:
    """The row as decisions see it."""
    return Progress(state=WebhookState(row.state), **{name: getattr(row, name) for name in _PLAIN})


def save(tx: Transaction, row: WebhookRow, progress: Progress) -> None:
    """Writes a decision into its row."""
    row.state = progress.state.value
    for name in _PLAIN:
        setattr(row, name, getattr(progress, name))
    row.message = storable(row.message)
    row.version += 1
    tx.changed = True


def due(tx: Transaction) -> list[ColumnElement[bool]]:
    """What holds of a webhook that there is something for."""
    behind = exists().where(AdapterEventRow.tenant == WebhookRow.tenant, AdapterEventRow.seq > WebhookRow.cursor)
    return [WebhookRow.state == WebhookState.ACTIVE.value, WebhookRow.due_at <= tx.now, behind]


async def by_name(tx: Transaction, tenant: str, webhook_id: str) -> WebhookRow | None:
    """The tenant's webhook of that id; in a transaction that writes it is locked."""
    query = select(WebhookRow).where(WebhookRow.tenant == tenant, WebhookRow.webhook_id == webhook_id)
    return await tx.session.scalar(tx.locked(query))


async def page(tx: Transaction, tenant: str, *, behind: str, size: int) -> Sequence[WebhookRow]:
    """Up to `size` of the tenant's, by id."""
    query = select(WebhookRow).where(WebhookRow.tenant == tenant, WebhookRow.webhook_id > behind)
    return (await tx.session.scalars(query.order_by(WebhookRow.webhook_id).limit(size))).all()


async def count(tx: Transaction, tenant: str) -> int:
    """How many the tenant has."""
    return await tx.session.scalar(select(func.count()).select_from(WebhookRow).where(WebhookRow.tenant == tenant)) or 0
