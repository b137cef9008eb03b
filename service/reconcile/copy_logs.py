"""Copies the logs of runs to the store while they run, and once more when they are gone: a backend's logs die with it.

What is new is read and written, in pieces. How far that has come lies in the database, so any replica goes on with it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from lorafleet.errors import LorafleetError, OperatorsFault
from lorafleet.layout import JobLayout
from service import log_context, log_copy
from service.backends.base import RunRef
from service.control.runs import RunState
from service.db import locks, runs
from service.db.models import RunLogRow, RunRow
from service.db.runs import Member
from service.reconcile.tools import ACTION_S, LOCK_S, Tools
from service.run_log import Line, RunLines, of_job
from service.storage import Store

COPY_EVERY_S = 5.0
COPY_FOR_S = 15.0  # in one step, of the time that its lock lasts
AT_ONCE_BYTES = 2**20  # that are read before they are written
LINES_COME_WITHIN_S = 2.0  # from a worker to the backend, through Ray
GIVE_UP_AFTER_S = 3600.0  # a store that refuses for so long after the end gets no log
SECONDS_PER_MB = 0.5  # backends pass over what was read before, which takes time: long logs less often

log = logging.getLogger(__name__)


async def copy_log_once(tools: Tools) -> bool:
    """Copy the log that has waited longest. False when none is due."""
    async with tools.db.transaction() as tx:
        due = (RunLogRow.complete.is_(False), RunLogRow.due_at <= tx.now)
        taken = await locks.take(tx, RunLogRow, *due, first=RunLogRow.due_at, lock_for_s=LOCK_S)
        run = None if taken is None else await runs.get(tx, taken.run_id)
        if taken is None or run is None:
            return False
        pack = await runs.members(tx, run.id)
        read_at = tx.now
    log_context.bind(run=run.id, jobs=runs.job_names(pack))

    copy = Copy.restored(run, taken.reading)
    async with locks.kept(tools.db, [taken], LOCK_S, ACTION_S):
        is_copied = await _copy(tools, run, pack, copy, is_over=_was_over(run, read_at))

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, taken)
        if held is not None:
            given_up = is_copied is not None and run.gone_time is not None and tx.now - run.gone_time > timedelta(seconds=GIVE_UP_AFTER_S)
            held.complete = given_up or (bool(is_copied) and _was_over(run, read_at))
            held.reading, held.size_bytes = copy.done, copy.done_bytes
            held.due_at = tx.now + timedelta(seconds=COPY_EVERY_S + SECONDS_PER_MB * held.size_bytes / 1e6)
            locks.release(held)
    if held is not None and held.complete and run.state == RunState.GONE.value:
        await _forget(tools, run)
    return True


async def _forget(tools: Tools, run: RunRow) -> None:
    """A backend that is away now is asked to end what it still has by `orphans.py`."""
    try:
        await tools.backend.forget(RunRef(run_id=run.host_id, handle=run.handle))
    except LorafleetError as error:
        log.warning("cannot remove what is left of %s: %s", run.id, error)


def _was_over(run: RunRow, read_at: datetime) -> bool:
    """Whether the run wrote no more: it was gone, or its workers had been idle for a while (lines come with a delay)."""
    if run.state == RunState.IDLE.value and run.gone_time is not None:
        return read_at - run.gone_time >= timedelta(seconds=LINES_COME_WITHIN_S)
    return run.state == RunState.GONE.value


@dataclass
class Copy:
    """Progress of copying a run's log."""

    lines: RunLines
    written: dict[str, int] = field(default_factory=dict)  # bytes in the store, by job uid
    done: dict[str, Any] | None = None  # where another step can go on: every member has all that was read up to there

    @classmethod
    def restored(cls, run: RunRow, done: dict[str, Any] | None) -> "Copy":
        if done is None:
            return cls(RunLines(run.id, run.host_id))
        return cls(RunLines.restored(run.id, run.host_id, done["lines"]), dict(done["written"]), done)

    @property
    def done_bytes(self) -> int:
        return 0 if self.done is None else self.done["lines"]["read_bytes"]

    def keep(self, written: Mapping[str, int]) -> None:
        """All that was read is written."""
        self.written.update(written)
        self.done = {"lines": self.lines.state(), "written": dict(self.written)}


async def _copy(tools: Tools, run: RunRow, pack: Sequence[Member], copy: Copy, *, is_over: bool) -> bool | None:
    """Whether all that there is has been copied; None: the operators must mend something first. `copy` tells how far that came."""
    try:
        store = await tools.store_of(run, pack[0].job.tenant)
        await _catch_up(tools, store, run, pack, copy)
        is_whole = await _go_on(tools, store, run, pack, copy)
        if is_over and is_whole:
            await _write(store, pack, copy.written, copy.lines.unfinished())
        return is_whole
    except log_copy.Changed:
        log.warning("the copied log of %s has changed; copying it again", run.id)
        copy.done = None
    except OperatorsFault as error:
        log.warning("the log of %s waits for the operators: %s", run.id, error)
        return None
    except LorafleetError as error:
        log.warning("cannot copy the log of %s: %s", run.id, error)
    return False


async def _go_on(tools: Tools, store: Store, run: RunRow, pack: Sequence[Member], copy: Copy) -> bool:
    """Continues where the last step ended. False if the time ran out before the log ended."""
    began = time.monotonic()
    async with aclosing(_gathered(tools.backend.logs(RunRef(run_id=run.host_id, handle=run.handle), copy.lines.read_bytes))) as pieces:
        async for piece in pieces:
            copy.keep(await _write(store, pack, copy.written, await asyncio.to_thread(copy.lines.feed, piece)))
            if time.monotonic() - began > COPY_FOR_S:
                return False
    return True


async def _catch_up(tools: Tools, store: Store, run: RunRow, pack: Sequence[Member], copy: Copy) -> None:
    """Members that joined the run since the last step get what the others have: some of it may be about them."""
    new = [member for member in pack if member.job.uid not in copy.written]
    left = copy.lines.read_bytes
    theirs = Copy(RunLines(run.id, run.host_id))
    if new and left:
        async with aclosing(_gathered(tools.backend.logs(RunRef(run_id=run.host_id, handle=run.handle)))) as pieces:
            async for piece in pieces:
                theirs.keep(await _write(store, new, theirs.written, await asyncio.to_thread(theirs.lines.feed, piece[:left])))
                left -= len(piece)
                if left <= 0:
                    break
    if new:
        copy.keep({member.job.uid: theirs.written.get(member.job.uid, 0) for member in new})


async def _write(store: Store, pack: Sequence[Member], written: Mapping[str, int], lines: Sequence[Line]) -> dict[str, int]:
    """Each member's own lines behind the bytes that it has; how many it has then. A broken step's are written again by the next."""
    texts = await asyncio.to_thread(lambda: [of_job(lines, member.job.name) for member in pack])
    ends: dict[str, int] = {}
    for member, text in zip(pack, texts, strict=True):
        at = written.get(member.job.uid, 0)
        if text:
            await log_copy.append(store, JobLayout(member.job.output_uri), member.place.attempt, at, text)
        ends[member.job.uid] = at + len(text)
    return ends


async def _gathered(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Larger pieces: each costs a write or two for every member."""
    some: list[bytes] = []
    async with aclosing(pieces):
        async for piece in pieces:
            some.append(piece)
            if sum(map(len, some)) >= AT_ONCE_BYTES:
                yield b"".join(some)
                some = []
    if some:
        yield b"".join(some)
