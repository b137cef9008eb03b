"""Decides what stopping jobs makes of runs: a pack goes on without the stopped ones, and is stopped once none is left."""

from collections.abc import Mapping

from service.control.lifecycle import JobState
from service.control.runs import StopPolicy, cancel_stop_at
from service.db import jobs, runs
from service.db.runs import PackMember
from service.db.transaction import Transaction


async def stop_what_is_over(
    tx: Transaction, asked: Mapping[str, JobState], policy: StopPolicy, reason: str = "CANCELLED", message: str = "stopped on request"
) -> None:
    """`asked` are jobs that were asked to stop, by uid, with their states before. Their runs are stopped the hard way, for
    this reason, unless they go by themselves."""
    for run, pack in (await runs.live_with(tx, list(asked))).items():
        if all(_is_over(member) for member in pack):
            states = [asked.get(member.job.uid, member.state) for member in pack]
            runs.stop_from(run, cancel_stop_at(states, tx.now, policy), reason, message)


def _is_over(member: PackMember) -> bool:
    job = jobs.value(member.job)
    return job.finished or job.state is JobState.STOPPING
