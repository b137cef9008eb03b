"""Holds rounds of admission: starts packs on warm workers, in new runs or in active runs; makes room; or says why jobs wait.

Loads and decides outside the transaction, which then applies what still holds: jobs may have been cancelled meanwhile, warm
workers may have gone. A round that another replica has overtaken is not applied (`queue.lock_admission`). There is no effect
outside the database, so it needs no lock token.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from service.control import admission, lifecycle, packing
from service.control.admission import Decided
from service.control.packing import Candidate, Packer, Refusal
from service.control.placing import Release, Start
from service.db import hosts, jobs, queue, runs
from service.db.models import JobRow, RunRow
from service.db.transaction import Transaction
from service.reconcile.join import join_once
from service.reconcile.make_room import make_room
from service.reconcile.situation import Seen, heard_since, look
from service.reconcile.tell import tell_some
from service.reconcile.tools import Tools
from service.warm import release

AGAIN_S = 5.0  # a round is held this often even if nothing has changed but the time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Planned:
    """The result of one look at the queue."""

    decided: Decided
    refusals: Sequence[Refusal]


async def admit_once(tools: Tools) -> bool:
    """Starts what may start now, and notes why the others wait."""
    async with tools.db.snapshot() as tx:
        if not (num_waiting := await queue.num_waiting(tx)):
            return False
        seen = await look(tools, tx, num_waiting)
    memory = tools.admission
    if memory.seen == seen.mark and abs(seen.situation.now_s - memory.held_at_s) < AGAIN_S:
        return await tell_some(tools)
    planned = await _plan(tools, seen)
    memory.seen, memory.held_at_s, memory.decided = seen.mark, seen.situation.now_s, planned.decided
    worked = await _apply(tools, planned, seen.epoch)
    if not planned.decided.decisions:
        worked = await join_once(tools, seen) or worked
    if worked:
        memory.seen = None  # it may look the same again one day, with other jobs to start
    return await tell_some(tools) or worked


async def _plan(tools: Tools, seen: Seen) -> _Planned:
    waiting = await tools.candidates.of_queue(tools.db)
    return await asyncio.to_thread(_planned, tools, waiting, seen)  # thousands of jobs are a part of a second


def _planned(tools: Tools, waiting: Sequence[Candidate], seen: Seen) -> _Planned:
    limits = tools.candidates.planner.policy.limits
    fitting, refusals = packing.sift(waiting, limits, tools.backend.hardware())
    decided = admission.decide(fitting, Packer(fitting, limits), seen.situation, tools.rules)
    return _Planned(decided=decided, refusals=refusals)


async def _apply(tools: Tools, planned: _Planned, epoch: int) -> bool:
    """Whether something was started. An outdated round is held again."""
    preemptions, starts = planned.decided.preemptions, planned.decided.starts
    if preemptions:
        if not await make_room(tools, preemptions, epoch):
            return _anew(tools)
        epoch += 1
    if not planned.decided.decisions and not planned.refusals:
        return bool(preemptions)
    uids = [member.uid for start in starts for member in start.pack.members] + [refusal.uid for refusal in planned.refusals]
    async with tools.db.transaction() as tx:
        if not await queue.lock_admission(tx, epoch):
            return _anew(tools)
        idle = {run.id: run for run in await hosts.idle(tx, heard_since(tx.now))}  # runs are locked before jobs
        rows = await queue.still_waiting(tx, uids)
        for refusal in planned.refusals:
            if (row := rows.get(refusal.uid)) is not None:
                jobs.save(tx, row, lifecycle.refuse(jobs.value(row), refusal.reason, refusal.message, tx.now))
        company = await queue.had_company(tx, list(rows))
        started = [await _start(tx, start, rows, idle, company) for start in starts]
        for decision in planned.decided.decisions:
            if isinstance(decision, Release) and (run := idle.get(decision.host.run_id)) is not None:
                release(tx, run, tools.stop.linger_s, "what waits for a run cannot use these warm workers")
    return any(started) or bool(preemptions)


def _anew(tools: Tools) -> bool:
    tools.admission.seen = None
    return True


async def _start(tx: Transaction, start: Start, rows: dict[str, JobRow], idle: dict[str, RunRow], company: Collection[str]) -> bool:
    pack = [rows[member.uid] for member in start.pack.members if member.uid in rows]
    if not pack or (start.host is not None and start.host.run_id not in idle):
        return False
    for row in pack:
        jobs.save(tx, row, lifecycle.admit(jobs.value(row)))
        row.queue_position = None
    in_company = len(pack) > 1 or any(row.uid in company for row in pack)
    host_id = start.host.host_id if start.host else None
    run = await runs.add(tx, pack, host_id=host_id, in_company=in_company, store_credentials=start.pack.key.warm.store_credentials)
    where = f" on the warm workers of {start.host.host_id}" if start.host else ""
    log.info("%s%s takes %d of the queue: %s", run.id, where, len(pack), start.pack.arithmetic)
    return True
