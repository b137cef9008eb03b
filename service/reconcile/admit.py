"""Admits queued jobs. One transaction and no effect outside it, so it needs no lock token."""

from service.control import admission, lifecycle
from service.control.admission import Admit, Wait
from service.db import jobs, runs
from service.reconcile.tools import Tools


async def admit_once(tools: Tools) -> bool:
    """Admits what may start now, and tells the others why they wait."""
    async with tools.db.transaction() as tx:
        queue = {row.uid: row for row in await jobs.queued(tx)}
        if not queue:
            return False
        waiting = [admission.QueuedJob(uid=uid) for uid in queue]
        decisions = admission.admit(waiting, await runs.num_live(tx), tools.limits)
        for decision in decisions:
            row = queue[decision.uid]
            match decision:
                case Admit():
                    jobs.save(tx, row, lifecycle.admit(jobs.value(row)))
                    await runs.add(tx, [row])
                case Wait():
                    jobs.save(tx, row, lifecycle.wait(jobs.value(row), decision.reason, decision.message))
    return any(isinstance(decision, Admit) for decision in decisions)
