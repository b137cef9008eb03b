"""Stops runs hard whose time is up, and those that have been silent for too long."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import exists, func, select

from lorafleet.errors import Unavailable
from service.backends.base import RunRef
from service.control import lifecycle
from service.control.lifecycle import JobState
from service.control.runs import RunState, lost, stuck
from service.core import log_context
from service.db import jobs, locks, row_faults, runs
from service.db.models import JobRow, RunJobRow, RunRow
from service.db.transaction import Transaction
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools
from service.runs.stops import stop_what_is_over

_SPEAKING = (RunState.LAUNCHED.value, RunState.OFFERED.value, RunState.IDLE.value)

log = logging.getLogger(__name__)


async def stop_once(tools: Tools) -> bool:
    """Stop one run whose hard stop is due. Its absence is observed elsewhere; if it stays, it is stopped again."""
    async with tools.db.transaction() as tx:
        due = (RunRow.state != RunState.GONE.value, RunRow.stop_at <= tx.now)
        run = await locks.take(tx, RunRow, *due, first=RunRow.stop_at, lock_for_s=LOCK_S)
        if run is None:
            return False

    log_context.bind(run=run.id)
    async with locked_rows.own(tools, "stop", run, due="stop_at"):
        await _stop(tools, run)
    return True


async def _stop(tools: Tools, run: RunRow) -> None:
    log.info("stopping %s: %s %s", run.id, run.stop_reason, run.stop_message)
    try:
        async with locks.kept(tools.db, [run], LOCK_S, ACTION_S):
            await tools.backend.stop(RunRef(run_id=run.host_id, handle=run.handle))
        again_s = tools.stop.stop_again_s
    except Unavailable as error:
        log.warning("%s cannot be stopped now: %s", run.id, error)
        again_s = 1.0

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, run)
        if held is not None:
            held.stop_at = tx.now + timedelta(seconds=again_s)
            held.due_at = tx.now
            locks.release(held)
            tx.changed = True  # it may be gone already: observe it now


async def notice_silence_once(tools: Tools) -> bool:
    """Marks silent runs for a hard stop. One transaction and no effect outside it, so it needs no lock token."""
    await tools.hearing.ask(tools.db.even_now)
    async with tools.db.transaction() as tx:
        tools.hearing.look(tx.now - tools.db.stepped)
        for run in await _quiet(tx, tools):
            with row_faults.own("silence", run.id):
                await _stop_if_lost(tx, tools, run)
        for run in await _slow_to_start(tx, tools):
            with row_faults.own("silence", run.id):
                await _stop_if_stuck(tx, tools, run)
    return False


async def _stop_if_lost(tx: Transaction, tools: Tools, run: RunRow) -> None:
    heard_at = max(run.report_time or run.launch_time or run.create_time, tools.heard_since)
    if (stop := lost(heard_at, tx.now, await _states(tx, run), tools.stop)) is not None:
        runs.stop_from(run, tx.now, stop.reason, stop.message)
        tx.changed = True


async def _stop_if_stuck(tx: Transaction, tools: Tools, run: RunRow) -> None:
    states = [member.state for member in await runs.members(tx, run.id) if member.job.end_time is None]
    if (stop := stuck(run.launch_time or run.create_time, tx.now, states, tools.stop)) is not None:
        runs.stop_from(run, tx.now, stop.reason, stop.message)
        tx.changed = True


async def expire_once(tools: Tools) -> bool:
    """Asks jobs whose time in runs is up to stop after a checkpoint."""
    async with tools.db.snapshot() as tx:
        due = [row.uid for row in await jobs.with_a_deadline(tx) if _is_up(row, tx.now)]
    if not due:
        return False
    async with tools.db.transaction() as tx:
        asked: dict[str, JobState] = {}
        for row in await runs.lock_jobs(tx, due):
            with row_faults.own("deadlines", row.name):
                before = jobs.value(row)
                if jobs.save(tx, row, lifecycle.expire(before, tx.now)):
                    log.info("%s has used up its time", row.name)
                    asked[row.uid] = before.state
        await stop_what_is_over(tx, asked, tools.stop, lifecycle.MAX_RUN_TIME_EXCEEDED, "its time is up")
    return False


def _is_up(row: JobRow, now: datetime) -> bool:
    with row_faults.own("deadlines", row.name):
        return lifecycle.expire(jobs.value(row), now) != jobs.value(row)
    return False


async def _states(tx: Transaction, run: RunRow) -> list[JobState]:
    if run.state == RunState.IDLE.value:
        return [JobState.RUNNING]  # its jobs have ended; the process that trained them is up, and has to report as it did
    return [member.state for member in await runs.members(tx, run.id)]


async def _slow_to_start(tx: Transaction, tools: Tools) -> Sequence[RunRow]:
    since = tx.now - timedelta(seconds=tools.stop.start_deadline_s)
    launched = (RunRow.state == RunState.LAUNCHED.value, RunRow.stop_at.is_(None), RunRow.launch_time <= since)
    trains = exists().where(RunJobRow.run_id == RunRow.id, RunJobRow.job_uid == JobRow.uid, JobRow.state == JobState.RUNNING.value)
    return (await tx.session.scalars(tx.locked(select(RunRow).where(*launched, ~trains).order_by(RunRow.id), skip=True))).all()


async def _quiet(tx: Transaction, tools: Tools) -> Sequence[RunRow]:
    shortest = min(tools.stop.heartbeat_timeout_s, tools.stop.start_timeout_s)
    heard_at = func.coalesce(RunRow.report_time, RunRow.launch_time, RunRow.create_time)
    speaking = (RunRow.state.in_(_SPEAKING), RunRow.stop_at.is_(None))
    query = select(RunRow).where(*speaking, heard_at <= tx.now - timedelta(seconds=shortest)).order_by(RunRow.id)
    return (await tx.session.scalars(tx.locked(query, skip=True))).all()  # a locked run is reporting right now
