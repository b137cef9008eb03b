"""Holds rounds of admission: starts packs on warm workers, in new runs or in active runs; makes room; or says why jobs wait.

Loads and decides outside the transaction, which then applies what still holds: jobs may have been cancelled meanwhile, warm
workers may have gone. A round that another replica has overtaken is not applied (`queue.lock_admission`). There is no effect
outside the database, so it needs no lock token.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from lorafleet.work import TRAINING
from service.control import admission, lifecycle, packing
from service.control.admission import Decided, Wait
from service.control.packing import Candidate, Packer, Refusal
from service.control.placing import Decision, Release, Start
from service.db import hosts, jobs, queue, row_faults, runs
from service.db.models import JobRow, RunRow
from service.db.transaction import Transaction
from service.planning.queued_jobs import Queued
from service.reconcile import launch_holds
from service.reconcile.admission_input import Seen, heard_since, look
from service.reconcile.context import Tools
from service.reconcile.join import join_once
from service.reconcile.preempt import make_room
from service.reconcile.wait_reasons import tell_some
from service.runs.warm_workers import release

AGAIN_S = 5.0  # a round is held this often even if nothing has changed but the time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Planned:
    """The result of one look at the queue."""

    decided: Decided
    refusals: Sequence[Refusal]

    @property
    def steps(self) -> list["_Step"]:
        return [*self.refusals, *self.decided.decisions]


_Step = Refusal | Decision


async def admit_once(tools: Tools) -> bool:
    """Starts what may start now, and notes why the others wait."""
    async with tools.db.snapshot() as tx:
        if not (num_waiting := await queue.num_waiting(tx)):
            return False
        seen = await look(tools, tx, num_waiting)
    memory = tools.admission
    if memory.seen == seen.mark and abs(seen.situation.now_s - memory.held_at_s) < AGAIN_S:
        return await tell_some(tools)
    memory.seen = None  # should this raise, the next round is held at once
    planned = await _plan(tools, seen)
    memory.decided = planned.decided
    worked = await _apply(tools, planned, seen.epoch)
    if not planned.decided.decisions:
        worked = await join_once(tools, seen) or worked
    if not worked:  # else it may look the same again one day, with other jobs to start
        memory.seen, memory.held_at_s = seen.mark, seen.situation.now_s
    return await tell_some(tools) or worked


async def _plan(tools: Tools, seen: Seen) -> _Planned:
    queued = await tools.candidates.of_queue(tools.db)
    return await asyncio.to_thread(_planned, tools, queued, seen)  # thousands of jobs are a part of a second


def _planned(tools: Tools, queued: Queued, seen: Seen) -> _Planned:
    """Nothing is decided on a job for which no decision can be made: it is set aside, for this round too."""
    decide = partial(_decided, tools, seen)
    waits, candidates = dict(queued.waits), queued.candidates
    try:
        planned = decide(candidates)
    except Exception:
        found = row_faults.culprits(candidates, decide)
        if not found:
            raise
        for job, error in found:
            row_faults.note("admit", job.uid, error)
            waits[job.uid] = tools.candidates.set_aside(job.uid, error)
        planned = decide([job for job in candidates if job.uid not in waits])
    planned.decided.add_waits(waits)
    return _Planned(decided=planned.decided, refusals=[*planned.refusals, *queued.refusals])


def _decided(tools: Tools, seen: Seen, candidates: Sequence[Candidate]) -> _Planned:
    limits = tools.candidates.planner.policy.limits
    fitting, refusals = packing.sift(candidates, limits, tools.backend.hardware())
    free, waits = _not_held_up(tools, fitting)
    decided = admission.decide(free, Packer(free, limits), seen.situation, tools.admission_policy)
    decided.add_waits(waits)
    return _Planned(decided=decided, refusals=refusals)


def _not_held_up(tools: Tools, fitting: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, Wait]]:
    """Those whose run could be launched, and why the others wait."""
    now, waits = tools.db.even_now(), dict[str, Wait]()
    for job in fitting:
        if (fault := tools.launch_holds.of(job.key.warm.store_credentials, now)) is not None:
            waits[job.uid] = Wait(reason=fault.reason, message=launch_holds.told(fault))
    return [job for job in fitting if job.uid not in waits], waits


async def _apply(tools: Tools, planned: _Planned, epoch: int) -> bool:
    """Whether something was started. An outdated round is held again."""
    preemptions = planned.decided.preemptions
    if preemptions:
        if not await make_room(tools, preemptions, epoch):
            return _anew(tools)
        epoch += 1
    applying = _Applying(tools, epoch)
    await row_faults.apart("admit", planned.steps, applying.apply, _name, applying.mark)
    return _anew(tools) if applying.is_outdated else applying.has_started or bool(preemptions)


def _anew(tools: Tools) -> bool:
    tools.admission.seen = None
    return True


def _name(step: _Step) -> str:
    match step:
        case Refusal(uid=uid):
            return uid
        case Release(host=host):
            return host.run_id
        case Start(pack=pack):
            return pack.members[0].uid


@dataclass
class _Applying:
    """Applies what was decided, all of it in one transaction as a rule. `epoch`: that of the next transaction."""

    tools: Tools
    epoch: int
    is_outdated: bool = False
    has_started: bool = False

    async def apply(self, steps: Sequence[_Step]) -> None:
        if self.is_outdated:
            return
        started = False
        async with self.tools.db.transaction() as tx:
            if not await queue.lock_admission(tx, self.epoch):
                self.is_outdated = True
                return
            idle = {run.id: run for run in await hosts.idle(tx, heard_since(tx.now))}  # runs are locked before jobs
            found = await queue.still_waiting(tx, [uid for step in steps for uid in _uids(step)])
            company = await queue.had_company(tx, list(found))
            for step in steps:
                match step:
                    case Refusal() if (row := found.get(step.uid)) is not None:
                        jobs.save(tx, row, lifecycle.refuse(jobs.value(row), step.reason, step.message, tx.now))
                    case Start():
                        started = await self._start(tx, step, found, idle, company) or started
                    case Release() if (run := idle.get(step.host.run_id)) is not None:
                        release(tx, run, self.tools.stop.linger_s, "what waits for a run cannot use these warm workers")
                    case _:
                        pass
        self.epoch += 1
        self.has_started = self.has_started or started

    async def _start(
        self, tx: Transaction, start: Start, found: dict[str, JobRow], idle: dict[str, RunRow], company: Collection[str]
    ) -> bool:
        if start.host is not None and start.host.run_id not in idle:
            return False
        pack = [row for member in start.pack.members if (row := found.get(member.uid)) is not None and self._admit(tx, row)]
        if not pack:
            return False
        in_company = len(pack) > 1 or any(row.uid in company for row in pack)
        host_id = start.host.host_id if start.host else None
        run = await runs.add(tx, pack, host_id=host_id, in_company=in_company, store_credentials=start.pack.key.warm.store_credentials)
        if start.pack.key.warm.kind == TRAINING:  # nothing else is served by workers that stand by
            self.tools.standing.learn(start.pack.key.warm.cluster.shape)
        where = f" on the warm workers of {start.host.host_id}" if start.host else ""
        log.info("%s%s takes %d of the queue: %s", run.id, where, len(pack), start.pack.arithmetic)
        return True

    def _admit(self, tx: Transaction, row: JobRow) -> bool:
        """False for a job that cannot be: the others of its pack start without it."""
        with row_faults.own("admit", row.name) as trouble:
            jobs.save(tx, row, lifecycle.admit(jobs.value(row)))
            row.queue_position = None
        if trouble.error:
            self.tools.candidates.set_aside(row.uid, trouble.error)
        return not trouble

    async def mark(self, step: _Step, error: Exception) -> None:
        """What it was about waits, and says why."""
        for uid in _uids(step):
            self.tools.candidates.set_aside(uid, error)


def _uids(step: _Step) -> list[str]:
    match step:
        case Refusal(uid=uid):
            return [uid]
        case Start(pack=pack):
            return [member.uid for member in pack.members]
        case _:
            return []
