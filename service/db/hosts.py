"""Reads warm workers: those waiting for a run, those leaving, and the jobs that were ever in their process."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import aliased

from service.control.runs import COMING, RunState
from service.db.models import JobRow, RunJobRow, RunRow
from service.db.transaction import Transaction

COMING_UP = (RunState.PENDING.value, RunState.LAUNCHED.value)  # workers that are to stand by
RELEASED = "RELEASED"  # stop_reason of an idle run whose workers were asked to end


async def idle(tx: Transaction, heard_since: datetime) -> Sequence[RunRow]:
    """Runs whose workers are idle, reported lately and have no other run coming; the longest waiting first. Last those that
    are to stand by and still come up: a run waits for them no longer than for workers of its own."""
    ready = (RunRow.state == RunState.IDLE.value) & (RunRow.report_time >= heard_since)
    comes_up = RunRow.standby.is_not(None) & RunRow.state.in_(COMING_UP)
    query = select(RunRow).where(ready | comes_up, RunRow.stop_at.is_(None), ~_is_taken()).order_by(RunRow.id)
    found = await tx.session.scalars(tx.locked(query, of=RunRow))
    return sorted(found, key=lambda run: (run.gone_time is None, run.gone_time or run.create_time, run.id))


async def standing_by(tx: Transaction) -> Sequence[RunRow]:
    """Runs of workers that stand by, or come up for it, or leave, and have no other run coming; the oldest first."""
    query = select(RunRow).where(RunRow.standby.is_not(None), RunRow.state != RunState.GONE.value, ~_is_taken())
    return (await tx.session.scalars(query.order_by(RunRow.create_time, RunRow.id))).all()


async def guests(tx: Transaction, host_ids: Sequence[str]) -> list[tuple[str, JobRow]]:
    """Every job that was ever in the process of one of these hosts, with the host."""
    query = select(RunRow.host_id, JobRow).join(RunJobRow, RunJobRow.run_id == RunRow.id).join(JobRow)
    return [(host_id, job) for host_id, job in await tx.session.execute(query.where(RunRow.host_id.in_(host_ids)))]


async def coming(tx: Transaction, run: RunRow) -> RunRow | None:
    """The next run of the workers of `run`. To change it, lock the host first."""
    other = (RunRow.host_id == run.host_id, RunRow.id != run.id, RunRow.standby.is_(None))
    query = select(RunRow).where(*other, RunRow.state.in_(COMING))
    return await tx.session.scalar(query)


async def before(tx: Transaction, run: RunRow) -> Sequence[RunRow]:
    """The idle runs that the workers of `run` had ended before it. To change them, lock the host first."""
    query = select(RunRow).where(RunRow.host_id == run.host_id, RunRow.id != run.id, RunRow.state == RunState.IDLE.value)
    return (await tx.session.scalars(query)).all()


async def lock(tx: Transaction, host_id: str) -> Sequence[RunRow]:
    """Locks all runs of the host that are not gone, in the same order as everywhere."""
    there = (RunRow.host_id == host_id, RunRow.state != RunState.GONE.value)
    return (await tx.session.scalars(tx.locked(select(RunRow).where(*there).order_by(RunRow.id)))).all()


async def is_alive(tx: Transaction, host_id: str) -> bool:
    """Whether the host's process is alive, as far as is known."""
    query = select(func.count()).select_from(RunRow).where(RunRow.host_id == host_id, RunRow.state != RunState.GONE.value)
    return bool(await tx.session.scalar(query))


async def alive(tx: Transaction, host_ids: Sequence[str]) -> set[str]:
    """Those of the hosts whose process lives, as far as is known."""
    query = select(RunRow.host_id).distinct().where(RunRow.host_id.in_(host_ids), RunRow.state != RunState.GONE.value)
    return set((await tx.session.scalars(query)).all())


async def open_to_joiners(tx: Transaction) -> Sequence[RunRow]:
    """Runs that others may join: not about to be stopped, and padded from the start, since a job that began alone would change
    in its last bits with the first joiner."""
    is_open = (RunRow.state == RunState.LAUNCHED.value, RunRow.stop_at.is_(None), RunRow.in_company.is_(True))
    found = await tx.session.scalars(tx.locked(select(RunRow).where(*is_open).order_by(RunRow.id)))
    return sorted(found, key=lambda run: (run.create_time, run.id))


def _is_taken() -> ColumnElement[bool]:
    other = aliased(RunRow)
    return exists().where(other.host_id == RunRow.host_id, other.standby.is_(None), other.state.in_(COMING))
