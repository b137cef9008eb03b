"""Takes rows by lock token: the holder of the token may write, until it expires or another takes the row."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, inspect, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from service.core.concurrency import beside
from service.db.database import Database
from service.db.errors import Contended, Unreachable
from service.db.models import Lockable, RunLogRow, RunRow
from service.db.registry_models import AdapterVersionRow
from service.db.transaction import Transaction
from service.db.webhook_models import WebhookRow

KINDS: tuple[type[RunRow], type[RunLogRow], type[AdapterVersionRow], type[WebhookRow]] = (RunRow, RunLogRow, AdapterVersionRow, WebhookRow)
Row = TypeVar("Row", RunRow, RunLogRow, AdapterVersionRow, WebhookRow)
DueTime = InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None]


async def take(tx: Transaction, kind: type[Row], *eligible: ColumnElement[bool], first: DueTime, lock_for_s: float) -> Row | None:
    """Takes the first eligible row that is free; None when there is none."""
    taken = await take_some(tx, kind, *eligible, first=first, lock_for_s=lock_for_s, most=1)
    return taken[0] if taken else None


async def take_some(
    tx: Transaction, kind: type[Row], *eligible: ColumnElement[bool], first: DueTime, lock_for_s: float, most: int
) -> Sequence[Row]:
    """Takes the first eligible rows that are free, all by one token."""
    free = or_(kind.lock_expires_at.is_(None), kind.lock_expires_at <= tx.now)
    rows = (await tx.session.scalars(tx.locked(select(kind).where(*eligible, free).order_by(first).limit(most), skip=True))).all()
    token = f"{tx.sender}.{uuid4().hex}"
    for row in rows:
        row.lock_token = token
        row.lock_expires_at = tx.now + timedelta(seconds=lock_for_s)
    return rows


async def still_held(tx: Transaction, taken: Row) -> Row | None:
    """The row as it is now, if it is still held by the token of `taken`. None: write nothing."""
    held = await those_held(tx, [taken])
    return held[0] if held else None


async def those_held(tx: Transaction, taken: Sequence[Row]) -> Sequence[Row]:
    """Of rows that were taken together those that are still held by their token, as they are now and in the order of their ids.
    Write no others."""
    kind = type(taken[0])
    key = inspect(kind).primary_key[0]
    ids = [getattr(row, str(key.key)) for row in taken]
    mine = (kind.lock_token == taken[0].lock_token, kind.lock_expires_at > tx.now)
    return (await tx.session.scalars(tx.locked(select(kind).where(key.in_(ids), *mine).order_by(key)))).all()


@asynccontextmanager
async def kept(db: Database, taken: Sequence[Row], lock_for_s: float, at_most_s: float) -> AsyncGenerator[None]:
    """Renews the lock of rows that were taken together while what they were taken for is done, so that it may be short: a process
    that dies keeps its rows from the others for no longer. Not beyond `at_most_s`, for an action that hangs."""
    async with beside(_renew(db, taken, lock_for_s, time.monotonic() + at_most_s)):
        yield


async def _renew(db: Database, taken: Sequence[Row], lock_for_s: float, until: float) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(lock_for_s / 3)
        with suppress(Contended, Unreachable):  # tried again; what is lost meanwhile, `still_held` says
            async with db.transaction() as tx:
                held = await those_held(tx, taken)
                if not held:
                    return
                for row in held:
                    row.lock_expires_at = tx.now + timedelta(seconds=lock_for_s)


def release(row: Lockable) -> None:
    """Frees the row."""
    row.lock_token = None
    row.lock_expires_at = None


async def release_held_by(tx: Transaction, sender: str) -> None:
    """Frees what a process took, by itself, once it works on nothing any more."""
    for kind in KINDS:
        mine = kind.lock_token.startswith(f"{sender}.", autoescape=True)
        released = await tx.session.execute(
            update(kind).where(mine).values(lock_token=None, lock_expires_at=None).returning(kind.lock_token)
        )
        tx.changed = tx.changed or bool(released.all())


async def release_all(tx: Transaction) -> None:
    """Frees every row, left locked by dead processes. Only if no other process uses this database."""
    for kind in KINDS:
        await tx.session.execute(update(kind).values(lock_token=None, lock_expires_at=None))
