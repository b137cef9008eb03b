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

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import LorafleetError, OperatorsFault, Unavailable
from service.backends.base import RunRef
from service.backends.run_log import Line, RunLines, of_job
from service.control.runs import RunState
from service.core import log_context
from service.db import locks, row_faults, runs
from service.db.models import RunLogRow, RunRow
from service.db.runs import PackMember
from service.reconcile import locked_rows
from service.reconcile.context import ACTION_S, LOCK_S, Tools
from service.store import job_logs
from service.store.client import Store

COPY_EVERY_S = 5.0
COPY_FOR_S = 15.0  # in one step, of the time that its lock lasts
AT_ONCE_BYTES = 2**20  # that are read before they are written
LINES_COME_WITHIN_S = 2.0  # from a worker to the backend, through Ray
GIVE_UP_AFTER_S = 3600.0  # a store that refuses for so long after the end gets no log
MAX_FAILURES = 3  # of one member's log, which then ends there: what others wrote in its place, or a folder that refuses
SECONDS_PER_MB = 0.5  # backends pass over what was read before, which takes time: long logs less often

log = logging.getLogger(__name__)


async def copy_log_once(tools: Tools) -> bool:
    """Copy the log that has waited longest. False when none is due."""
    async with tools.db.transaction() as tx:
        due = (RunLogRow.complete.is_(False), RunLogRow.due_at <= tx.now)
        row = await locks.take(tx, RunLogRow, *due, first=RunLogRow.due_at, lock_for_s=LOCK_S)
        run = None if row is None else await runs.get(tx, row.run_id)
        if row is None or run is None:
            return False
        pack = await runs.members(tx, run.id)
        read_at = tx.now
    log_context.bind(run=run.id, jobs=runs.job_names(pack))

    async with locked_rows.own(tools, "logs", row):
        await _copy_taken(tools, row, run, pack, read_at)
    return True


async def _copy_taken(tools: Tools, row: RunLogRow, run: RunRow, pack: Sequence[PackMember], read_at: datetime) -> None:
    copy = Copy.restored(run, row.reading)
    async with locks.kept(tools.db, [row], LOCK_S, ACTION_S):
        is_copied = await _copy(tools, run, pack, copy, is_over=_was_over(run, read_at))

    async with tools.db.transaction() as tx:
        held = await locks.still_held(tx, row)
        if held is not None:
            given_up = is_copied is not None and run.gone_time is not None and tx.now - run.gone_time > timedelta(seconds=GIVE_UP_AFTER_S)
            held.complete = given_up or (bool(is_copied) and _was_over(run, read_at))
            held.reading, held.size_bytes = copy.done, copy.done_bytes
            held.due_at = tx.now + timedelta(seconds=COPY_EVERY_S + SECONDS_PER_MB * held.size_bytes / 1e6)
            locks.release(held)
    if held is not None and held.complete and run.state == RunState.GONE.value:
        await _forget(tools, run)


async def _forget(tools: Tools, run: RunRow) -> None:
    """A backend that is away now is asked to end what it still has by `orphans.py`."""
    try:
        await tools.backend.forget(RunRef(run_id=run.host_id, handle=run.handle))
    except LorafleetError as error:
        log.warning("cannot remove what is left of %s: %s", run.id, error)


def _was_over(run: RunRow, read_at: datetime) -> bool:
    """Whether the run wrote no more: it was gone, or its workers had been idle for a while (lines come with a delay)."""
    if run.standby is not None:  # what its driver was handed is kept until it is gone
        return run.state == RunState.GONE.value
    if run.state == RunState.IDLE.value and run.gone_time is not None:
        return read_at - run.gone_time >= timedelta(seconds=LINES_COME_WITHIN_S)
    return run.state == RunState.GONE.value


@dataclass
class Copy:
    """Progress of copying a run's log."""

    lines: RunLines
    written: dict[str, int] = field(default_factory=dict)  # bytes in the store, by job uid
    failures: dict[str, int] = field(default_factory=dict)  # of writing to the store, by job uid
    done: dict[str, Any] | None = None  # where another step can go on: every member has all that was read up to there

    @classmethod
    def restored(cls, run: RunRow, done: dict[str, Any] | None) -> "Copy":
        if done is None:
            return cls(RunLines(run.id, run.host_id))
        lines = RunLines.restored(run.id, run.host_id, done["lines"])
        return cls(lines, dict(done["written"]), dict(done.get("failures", {})), done)

    @property
    def done_bytes(self) -> int:
        return 0 if self.done is None else self.done["lines"]["read_bytes"]

    def keep(self, written: Mapping[str, int]) -> None:
        """All that was read is written, of these members."""
        self.written.update(written)
        self.done = {"lines": self.lines.state(), "written": dict(self.written), "failures": dict(self.failures)}

    def fail(self, uid: str, error: Exception) -> None:
        """A member's log could not be written: it is caught up with from its beginning, unless that fails again and again."""
        self.written.pop(uid, None)
        if not isinstance(error, Unavailable):
            self.failures[uid] = self.failures.get(uid, 0) + 1

    def is_lost(self, member: PackMember) -> bool:
        return self.failures.get(member.job.uid, 0) >= MAX_FAILURES

    def present(self, pack: Sequence[PackMember]) -> list[PackMember]:
        """The members whose logs are as long as what was read."""
        return [member for member in pack if member.job.uid in self.written]


async def _copy(tools: Tools, run: RunRow, pack: Sequence[PackMember], copy: Copy, *, is_over: bool) -> bool | None:
    """Whether all that there is has been copied; None: the operators must mend something first. `copy` tells how far that came."""
    if not pack:  # it stood by: nobody's log
        return True
    try:
        store = await tools.store_of(run, pack[0].job.tenant)
        await _catch_up(tools, store, run, pack, copy)
        is_whole = await _go_on(tools, store, run, pack, copy)
        if is_over and is_whole:
            await _write(store, pack, copy, copy.lines.unfinished())
        return is_whole and all(member.job.uid in copy.written or copy.is_lost(member) for member in pack)
    except OperatorsFault as error:
        log.warning("the log of %s waits for the operators: %s", run.id, error)
        return None
    except LorafleetError as error:
        log.warning("cannot copy the log of %s: %s", run.id, error)
    return False


async def _go_on(tools: Tools, store: Store, run: RunRow, pack: Sequence[PackMember], copy: Copy) -> bool:
    """Continues where the last step ended. False if the time ran out before the log ended."""
    began = time.monotonic()
    async with aclosing(_gathered(tools.backend.logs(RunRef(run_id=run.host_id, handle=run.handle), copy.lines.read_bytes))) as pieces:
        async for piece in pieces:
            copy.keep(await _write(store, pack, copy, await asyncio.to_thread(copy.lines.feed, piece)))
            if time.monotonic() - began > COPY_FOR_S:
                return False
    return True


async def _catch_up(tools: Tools, store: Store, run: RunRow, pack: Sequence[PackMember], copy: Copy) -> None:
    """Members that joined the run since the last step get what the others have: some of it may be about them."""
    new = [member for member in pack if member.job.uid not in copy.written and not copy.is_lost(member)]
    theirs = Copy(RunLines(run.id, run.host_id), {member.job.uid: 0 for member in new}, copy.failures)
    try:
        await _catch_up_to(tools, store, run, theirs, new, copy.lines.read_bytes)
    except Unavailable as error:
        if not copy.present(pack):
            raise
        log.warning("%d logs of %s stay behind for now: %s", len(new), run.id, error)
        return
    if new:
        copy.keep(theirs.written)


async def _catch_up_to(tools: Tools, store: Store, run: RunRow, theirs: Copy, new: Sequence[PackMember], left: int) -> None:
    if not new or not left:
        return
    async with aclosing(_gathered(tools.backend.logs(RunRef(run_id=run.host_id, handle=run.handle)))) as pieces:
        async for piece in pieces:
            theirs.keep(await _write(store, new, theirs, await asyncio.to_thread(theirs.lines.feed, piece[:left])))
            left -= len(piece)
            if left <= 0:
                return


async def _write(store: Store, pack: Sequence[PackMember], copy: Copy, lines: Sequence[Line]) -> dict[str, int]:
    """Each member's own lines behind the bytes that it has; how many it has then. A broken step's are written again by the next.

    A member whose log cannot be written falls behind, and keeps no other from its own. Raises Unavailable when none can be.
    """
    present = copy.present(pack)
    texts = await asyncio.to_thread(lambda: [of_job(lines, member.job.name) for member in present])
    ends: dict[str, int] = {}
    errors: dict[str, Exception] = {}
    for member, text in zip(present, texts, strict=True):
        at = copy.written[member.job.uid]
        with row_faults.own("logs", member.job.name) as trouble:
            if text:
                await job_logs.append(store, JobLayout(member.job.output_uri), member.place.attempt, at, text)
            ends[member.job.uid] = at + len(text)
        if trouble.error:
            errors[member.job.uid] = trouble.error
    away = next((error for error in errors.values() if isinstance(error, Unavailable)), None)
    if away is not None and not ends:  # the store, and not one member's part of it
        raise away
    for uid, error in errors.items():
        copy.fail(uid, error)
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
