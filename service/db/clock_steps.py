"""Carries what is due over a step of the clock: the time of day was set, and no time has passed for runs, locks and jobs."""

from datetime import timedelta

from sqlalchemy import BigInteger, literal, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncSession

from service.control.lifecycle import FINISHED
from service.control.runs import RunState
from service.db.models import JobRow, RunLogRow, RunRow, ServiceRow

_RUN_TIMES = ("create_time", "launch_time", "gone_time", "report_time", "seen_time", "due_at", "stop_at", "lock_expires_at")
_JOB_TIMES = ("run_start_time", "retry_at")
_LOG_TIMES = ("due_at", "lock_expires_at")


async def carried(session: AsyncSession) -> timedelta:
    """The sum of all steps that were carried over."""
    return timedelta(microseconds=await session.scalar(select(ServiceRow.clock_carried_us)) or 0)


async def carry_over(session: AsyncSession, step: timedelta, *, carried: timedelta) -> bool:
    """Moves the times of all that goes on by `step`. False, and nothing is moved, when the sum of the steps is no longer
    `carried`: another replica has done it."""
    mine = update(ServiceRow).where(ServiceRow.clock_carried_us == _us(carried)).values(clock_carried_us=_us(carried + step))
    if await session.scalar(mine.returning(ServiceRow.id)) is None:
        return False
    live, going, copying = RunRow.state != RunState.GONE.value, JobRow.state.not_in(FINISHED), RunLogRow.complete.is_(False)
    for kind, which, names in ((RunRow, live, _RUN_TIMES), (JobRow, going, _JOB_TIMES), (RunLogRow, copying, _LOG_TIMES)):
        key = next(iter(kind.__table__.primary_key))
        await session.execute(select(key).where(which).order_by(key).with_for_update())  # in the order in which all lock them
        moved = {name: type_coerce(getattr(kind, name), BigInteger) + literal(_us(step), BigInteger) for name in names}
        await session.execute(update(kind).where(which).values(moved).execution_options(synchronize_session=False))
    return True


def _us(step: timedelta) -> int:
    return step // timedelta(microseconds=1)
