"""Reads pages of jobs by key: a page stands behind the last job of the one before, whatever was created since."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from service.db.models import JobRow
from service.db.transaction import Transaction

_COMPARE: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class PageKey:
    """The last job of a page."""

    create_time: datetime
    uid: str


async def page(
    tx: Transaction, tenant: str, matches: Sequence[ColumnElement[bool]], *, newest_first: bool, behind: PageKey | None, size: int
) -> Sequence[JobRow]:
    """Up to `size` jobs of the tenant."""
    query = select(JobRow).where(JobRow.tenant == tenant, *matches)
    if behind is not None:
        query = query.where(_behind(behind, newest_first))
    keys = (JobRow.create_time, JobRow.uid)
    query = query.order_by(*(key.desc() if newest_first else key.asc() for key in keys)).limit(size)
    return (await tx.session.scalars(query)).all()


def compare_text(column: ColumnElement[str] | InstrumentedAttribute[str], op: str, value: str) -> ColumnElement[bool]:
    """= and !=; what is not set differs from everything."""
    return column == value if op == "=" else or_(column != value, column.is_(None))


def compare_time(op: str, value: datetime, column: InstrumentedAttribute[datetime] = JobRow.create_time) -> ColumnElement[bool]:
    """A comparison with a time, of creation where nothing else is said."""
    return _COMPARE[op](column, value)


def compare_number(column: ColumnElement[float] | InstrumentedAttribute[int], op: str, value: float) -> ColumnElement[bool]:
    """A comparison with a number; what is not set differs from every one, and is neither smaller nor larger."""
    return or_(column != value, column.is_(None)) if op == "!=" else _COMPARE[op](column, value)


def label(key: str) -> ColumnElement[str]:
    """The value of a label."""
    return JobRow.labels[key].as_string()


def _behind(key: PageKey, newest_first: bool) -> ColumnElement[bool]:
    time, uid = JobRow.create_time, JobRow.uid
    if newest_first:
        return or_(time < key.create_time, and_(time == key.create_time, uid < key.uid))
    return or_(time > key.create_time, and_(time == key.create_time, uid > key.uid))
