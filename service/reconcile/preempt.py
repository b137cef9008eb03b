"""Preempts runs of lower classes: their jobs save a checkpoint, are queued again, and go on later."""

import logging
from collections.abc import Sequence

from service.control import lifecycle
from service.control.admission import Preempt
from service.control.lifecycle import JobState
from service.db import jobs, queue, row_faults, runs
from service.reconcile.context import Tools
from service.runs.stops import stop_what_is_over

log = logging.getLogger(__name__)


async def make_room(tools: Tools, preemptions: Sequence[Preempt], epoch: int) -> bool:
    """Asks the runs to stop. False when another has decided since: nothing was done."""
    chosen = {preemption.run_id: preemption for preemption in preemptions}
    async with tools.db.transaction() as tx:
        if not await queue.lock_admission(tx, epoch):
            return False
        uids = {member.job.uid: run_id for run_id in chosen for member in await runs.members(tx, run_id)}
        asked: dict[str, JobState] = {}
        for row in await runs.lock_jobs(tx, sorted(uids)):
            with row_faults.own("admit", row.name):
                before = jobs.value(row)
                wanted = chosen[uids[row.uid]].priority_class
                message = f"stopping after a checkpoint: a job of the class {wanted.name.lower()} needs its place; it will go on later"
                if jobs.save(tx, row, lifecycle.preempt(before, message)):
                    asked[row.uid] = before.state
        await stop_what_is_over(tx, asked, tools.stop, lifecycle.PREEMPTED, "stopped for a job of a higher class")
    for run_id in chosen:
        log.info("%s makes room for %s", run_id, chosen[run_id].uid)
    return True
