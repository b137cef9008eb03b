"""Reads pages of jobs by key: a page stands behind the last job of the one before, whatever was created since."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from service.db.models import JobRow
from service.db.transaction import Transaction


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


def compare_time(op: str, value: datetime) -> ColumnElement[bool]:
    """A comparison with the time of creation."""
    column = JobRow.create_time
    return {
        "=": column == value,
        "!=": column != value,
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
    }[op]


def label(key: str) -> ColumnElement[str]:
    """The value of a label."""
    return JobRow.labels[key].as_string()


def _behind(key: PageKey, newest_first: bool) -> ColumnElement[bool]:
    time, uid = JobRow.create_time, JobRow.uid
    if newest_first:
        return or_(time < key.create_time, and_(time == key.create_time, uid < key.uid))
    return or_(time > key.create_time, and_(time == key.create_time, uid > key.uid))
