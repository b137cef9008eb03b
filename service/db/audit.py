"""Writes and reads the audit log. The row of a call is written in the transaction that does what the call asks for: both are kept or
neither.

A call that is refused, or that wrote nothing, gets its row from `service.api.interceptors.auditing` afterwards.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, delete, or_, select

from service.db.after_commit import after_commit
from service.db.job_pages import PageKey
from service.db.models import AuditRow
from service.db.transaction import Transaction


@dataclass(kw_only=True)
class AuditEntry:
    """A call that is being answered: who does what, to what, from where."""

    tenant: str
    principal: str
    method: str
    resource: str
    peer: str
    written: bool = False


current_entry: ContextVar[AuditEntry | None] = ContextVar("current_entry", default=None)


def about(resource: str) -> None:
    """The call under way is about that thing, which had no name when it came in."""
    if (entry := current_entry.get()) is not None:
        entry.resource = resource


def record(tx: Transaction) -> None:
    """Writes the row of the call under way, once; right before its first transaction that may write commits."""
    entry = current_entry.get()
    if entry is None or entry.written:
        return
    append(tx, entry, code="OK")

    def written() -> None:
        entry.written = True

    after_commit(tx, written)


async def add_all(tx: Transaction, entries: Sequence[AuditEntry]) -> None:
    """Writes the rows of calls that share this transaction."""
    await tx.insert(AuditRow, [_values(tx, entry, "OK", "") for entry in entries])

    def written() -> None:
        for entry in entries:
            entry.written = True

    after_commit(tx, written)


def append(tx: Transaction, entry: AuditEntry, *, code: str, reason: str = "") -> None:
    """Adds a row."""
    tx.session.add(AuditRow(**_values(tx, entry, code, reason)))


def _values(tx: Transaction, entry: AuditEntry, code: str, reason: str) -> dict[str, object]:
    return {
        "uid": uuid4().hex,
        "time": tx.now,
        "tenant": entry.tenant,
        "principal": entry.principal,
        "method": entry.method,
        "resource": entry.resource,
        "peer": entry.peer,
        "code": code,
        "reason": reason,
    }


async def page(
    tx: Transaction, tenant: str, *, start: datetime | None, end: datetime | None, behind: PageKey | None, size: int
) -> Sequence[AuditRow]:
    """Up to `size` rows of the tenant from `start` until before `end`, newest first."""
    which: list[ColumnElement[bool]] = [AuditRow.tenant == tenant]
    which += [AuditRow.time >= start] if start is not None else []
    which += [AuditRow.time < end] if end is not None else []
    if behind is not None:
        which.append(or_(AuditRow.time < behind.create_time, and_(AuditRow.time == behind.create_time, AuditRow.uid < behind.uid)))
    query = select(AuditRow).where(*which).order_by(AuditRow.time.desc(), AuditRow.uid.desc()).limit(size)
    return (await tx.session.scalars(query)).all()


async def forget(tx: Transaction, before: datetime) -> None:
    """Deletes rows that are older."""
    await tx.session.execute(delete(AuditRow).where(AuditRow.time < before))
