"""Rows taken by lock token: the holder of the token may write, until it expires or another takes the row."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, UnaryExpression, inspect, or_, select, update

from service.concurrency import beside
from service.db.database import Database
from service.db.errors import Contended, Unreachable
from service.db.models import Lockable, RunLogRow, RunRow
from service.db.transaction import Transaction

Row = TypeVar("Row", RunRow, RunLogRow)


async def take(
    tx: Transaction, kind: type[Row], *eligible: ColumnElement[bool], first: Any | UnaryExpression[Any], lock_for_s: float
) -> Row | None:
    """Takes the first eligible row that is free; None when there is none."""
    free = or_(kind.lock_expires_at.is_(None), kind.lock_expires_at <= tx.now)
    row = await tx.session.scalar(tx.locked(select(kind).where(*eligible, free).order_by(first).limit(1), skip=True))
    if row is not None:
        row.lock_token = f"{tx.sender}.{uuid4().hex}"
        row.lock_expires_at = tx.now + timedelta(seconds=lock_for_s)
    return row


async def still_held(tx: Transaction, taken: Row) -> Row | None:
    """The row as it is now, if it is still held by the token of `taken`. None: write nothing."""
    kind = type(taken)
    key = inspect(kind).primary_key[0]
    row_id = getattr(taken, str(key.key))
    mine = (kind.lock_token == taken.lock_token, kind.lock_expires_at > tx.now)
    return await tx.session.scalar(tx.locked(select(kind).where(key == row_id, *mine)))


@asynccontextmanager
async def kept(db: Database, taken: Row, lock_for_s: float, at_most_s: float) -> AsyncIterator[None]:
    """Renews the lock while what it was taken for is done, so that it may be short: a process that dies keeps its rows from the
    others for no longer. Not beyond `at_most_s`, for an action that hangs."""
    async with beside(_renew(db, taken, lock_for_s, time.monotonic() + at_most_s)):
        yield


async def _renew(db: Database, taken: Row, lock_for_s: float, until: float) -> None:
    while time.monotonic() < until:
        await asyncio.sleep(lock_for_s / 3)
        with suppress(Contended, Unreachable):  # tried again; what is lost meanwhile, `still_held` says
            async with db.transaction() as tx:
                held = await still_held(tx, taken)
                if held is None:
                    return
                held.lock_expires_at = tx.now + timedelta(seconds=lock_for_s)


def release(row: Lockable) -> None:
    """Frees the row."""
    row.lock_token = None
    row.lock_expires_at = None


async def release_held_by(tx: Transaction, sender: str) -> None:
    """Frees what a process took, by itself, once it works on nothing any more."""
    for kind in (RunRow, RunLogRow):
        mine = kind.lock_token.startswith(f"{sender}.", autoescape=True)
        released = await tx.session.execute(
            update(kind).where(mine).values(lock_token=None, lock_expires_at=None).returning(kind.lock_token)
        )
        tx.changed = tx.changed or bool(released.all())


async def release_all(tx: Transaction) -> None:
    """Frees every row, left locked by dead processes. Only if no other process uses this database."""
    for kind in (RunRow, RunLogRow):
        await tx.session.execute(update(kind).values(lock_token=None, lock_expires_at=None))
