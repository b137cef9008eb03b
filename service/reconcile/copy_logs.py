"""Copies the logs of runs to the store while they live, and once more when they are gone: a backend's own die with it."""

import asyncio
import logging
from datetime import datetime, timedelta

from lorafleet.errors import LorafleetError
from lorafleet.layout import JobLayout
from service import log_context
from service.backends.base import RunRef
from service.control.runs import RunState
from service.db import locks, runs
from service.db.models import RunLogRow, RunRow
from service.db.runs import Member
from service.reconcile.tools import LOCK_S, Tools
from service.run_log import of_job

COPY_EVERY_S = 5.0
LINES_COME_WITHIN_S = 2.0  # from a worker to the backend, through Ray
GIVE_UP_AFTER_S = 3600.0  # a store that refuses for so long after the end gets no log
SECONDS_PER_MB = 2.0  # the whole log is copied each time: long ones less often

log = logging.getLogger(__name__)


async def copy_log_once(tools: Tools) -> bool:
    """Copy the log that waits longest for it. False when none is due."""
    async with tools.db.transaction() as tx:
        due = (RunLogRow.complete.is_(False), RunLogRow.due_at <= tx.now)
        taken = await locks.take(tx, RunLogRow, *due, first=RunLogRow.due_at, lock_for_s=LOCK_S)
        run = None if taken is None else await runs.get(tx, taken.run_id)
        if taken is None or run is None:
            return False
        pack = await runs.members(tx, run.id)
        read_at = tx.now
    log_context.bind(run=run.id, jobs=runs.told(pack))

    size_bytes = await _copy(tools, run, pack, taken.size_bytes)

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, taken)
        if held is not None:
            given_up = run.gone_time is not None and tx.now - run.gone_time > timedelta(seconds=GIVE_UP_AFTER_S)
            held.complete = given_up or (size_bytes is not None and _was_over(run, read_at))
            held.size_bytes = size_bytes or held.size_bytes
            held.due_at = tx.now + timedelta(seconds=COPY_EVERY_S + SECONDS_PER_MB * held.size_bytes / 1e6)
            locks.release(held)
    return True


def _was_over(run: RunRow, read_at: datetime) -> bool:
    """Whether the run wrote no more: it was gone, or its workers had been idle for a while (lines come with a delay)."""
    if run.state == RunState.IDLE.value and run.gone_time is not None:
        return read_at - run.gone_time >= timedelta(seconds=LINES_COME_WITHIN_S)
    return run.state == RunState.GONE.value


async def _copy(tools: Tools, run: RunRow, pack: list[Member], copied_bytes: int) -> int | None:
    """Bytes that the store has now; None when that could not be done."""
    try:
        text = b"".join([piece async for piece in tools.backend.logs(RunRef(run_id=run.host_id, handle=run.handle))])
        if len(text) <= copied_bytes:  # nothing new, or the backend has lost what it had
            return copied_bytes
        store = await tools.store_of(run, pack[0].job.tenant)
        for member in pack:
            own = await asyncio.to_thread(of_job, text, job=member.job.name, run=run.id, host=run.host_id)
            await store.put(JobLayout(member.job.output_uri).log(member.place.attempt), own)
        return len(text)
    except LorafleetError as error:
        log.warning("the log of %s is not copied: %s", run.id, error)
        return None
