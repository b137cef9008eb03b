"""What a cancel makes of runs: a pack goes on without its cancelled jobs, and is stopped once none is left."""

from collections.abc import Mapping

from service.control.lifecycle import JobState
from service.control.runs import StopPolicy, cancel_stop_at
from service.db import jobs, runs
from service.db.runs import Member
from service.db.transaction import Transaction


async def stop_what_is_over(tx: Transaction, cancelled: Mapping[str, JobState], policy: StopPolicy) -> None:
    """`cancelled` are jobs' states before this cancel, by uid. Their runs are stopped the hard way unless they go by themselves."""
    for run, pack in (await runs.live_with(tx, list(cancelled))).items():
        if all(_is_over(member) for member in pack):
            states = [cancelled.get(member.job.uid, member.state) for member in pack]
            runs.stop_from(run, cancel_stop_at(states, tx.now, policy), "CANCELLED", "stopped on request")


def _is_over(member: Member) -> bool:
    return jobs.value(member.job).finished or member.job.cancel_requested
