"""Admits queued jobs as packs: to warm workers, to new runs, to runs that train, or not yet.

Loads and plans outside the transaction, which then applies what still holds: jobs may have been cancelled meanwhile,
warm workers may have gone. There is no effect outside the database, so it needs no lock token.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.control import admission, lifecycle, packing
from service.control.admission import PACK_TOO_LARGE, Decision, IdleHost, Places, Release, Start, WaitReason
from service.control.packing import Candidate, Refusal
from service.db import hosts, jobs, queue, runs
from service.db.models import JobRow, RunRow
from service.db.transaction import Transaction
from service.reconcile.join import join_once
from service.reconcile.tools import Tools
from service.warm import release

TOLD_AT_ONCE = 500  # jobs that are told why they wait, in one transaction: reports must get their turn between two
HEARD_WITHIN_S = 10.0  # warm workers that were silent for longer get no run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Decided:
    """What one look at the queue has led to."""

    decisions: Sequence[Decision]
    refusals: Sequence[Refusal]


async def admit_once(tools: Tools) -> bool:
    """Starts what may start now, and tells the others why they wait."""
    async with tools.db.snapshot() as tx:
        if not await queue.num_waiting(tx):
            return False
        places = await _places(tools, tx)
    worked = await _apply(tools, await _decide(tools, places)) if places.num_in_reach else await join_once(tools)
    return await _tell(tools) or worked


async def _places(tools: Tools, tx: Transaction) -> Places:
    return Places(
        num_free=max(0, tools.limits.max_running_runs - await runs.num_live(tx)),
        num_leaving=await hosts.num_leaving(tx),
        idle=await _idle_hosts(tools, tx),
    )


async def _idle_hosts(tools: Tools, tx: Transaction) -> list[IdleHost]:
    idle = await hosts.idle(tx, _heard_since(tx.now))
    if not idle:
        return []
    guests = defaultdict[str, list[Candidate]](list)
    for host_id, job in await hosts.guests(tx, [run.host_id for run in idle]):
        guests[host_id].append(tools.candidates.of_row(job))
    return [_host(run, guests[run.host_id]) for run in idle]


def _host(run: RunRow, guests: Sequence[Candidate]) -> IdleHost:
    tenancy = frozenset(admission.tenancy(guest.tenant, guest.sharing) for guest in guests)
    return IdleHost(run_id=run.id, host_id=run.host_id, key=guests[0].key.warm, tenancy=tenancy)


def _heard_since(now: datetime) -> datetime:
    return now - timedelta(seconds=HEARD_WITHIN_S)


async def _decide(tools: Tools, places: Places) -> _Decided:
    waiting = await tools.candidates.of_queue(tools.db)
    return await asyncio.to_thread(_planned, tools, waiting, places)  # thousands of jobs are a part of a second


def _planned(tools: Tools, waiting: Sequence[Candidate], places: Places) -> _Decided:
    limits = tools.candidates.planner.policy.limits
    fitting, refusals = packing.sift(waiting, limits)
    packs = packing.packs(fitting, limits, places.num_in_reach)
    return _Decided(decisions=admission.admit(packs, places), refusals=refusals)


async def _apply(tools: Tools, decided: _Decided) -> bool:
    starts = [decision for decision in decided.decisions if isinstance(decision, Start)]
    uids = [member.uid for start in starts for member in start.pack.members] + [refusal.uid for refusal in decided.refusals]
    async with tools.db.transaction() as tx:
        idle = {run.id: run for run in await hosts.idle(tx, _heard_since(tx.now))}  # runs are locked before jobs
        rows = await queue.still_waiting(tx, uids)
        for refusal in decided.refusals:
            if (row := rows.get(refusal.uid)) is not None:
                jobs.save(tx, row, lifecycle.refuse(jobs.value(row), PACK_TOO_LARGE, refusal.message, tx.now))
        company = await queue.had_company(tx, list(rows))
        started = [await _start(tx, start, rows, idle, company) for start in starts]
        for decision in decided.decisions:
            if isinstance(decision, Release) and (run := idle.get(decision.host.run_id)) is not None:
                release(tx, run, tools.stop.linger_s, "what waits for a run cannot use these warm workers")
    return any(started)


async def _start(tx: Transaction, start: Start, rows: dict[str, JobRow], idle: dict[str, RunRow], company: Collection[str]) -> bool:
    pack = [rows[member.uid] for member in start.pack.members if member.uid in rows]
    if not pack or (start.host is not None and start.host.run_id not in idle):
        return False
    for row in pack:
        jobs.save(tx, row, lifecycle.admit(jobs.value(row)))
    in_company = len(pack) > 1 or any(row.uid in company for row in pack)
    run = await runs.add(tx, pack, host_id=start.host.host_id if start.host else None, in_company=in_company)
    where = f" on the warm workers of {start.host.host_id}" if start.host else ""
    log.info("%s%s takes %d of the queue: %s", run.id, where, len(pack), start.pack.arithmetic)
    return True


async def _tell(tools: Tools) -> bool:
    """Tells some of those who wait why; those who know are left alone. True when there may be more to tell."""
    reason, message = WaitReason.NO_FREE_RUN, admission.told(tools.limits)
    async with tools.db.transaction() as tx:
        rows = await queue.not_told(tx, reason, message, size=TOLD_AT_ONCE)
        for row in rows:
            jobs.save(tx, row, lifecycle.wait(jobs.value(row), reason, message))
    return len(rows) == TOLD_AT_ONCE
