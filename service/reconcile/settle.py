"""Writes down that a run is gone, and what that makes of its jobs."""

from collections.abc import Mapping

from service.control.attempts import Gone, RetryPolicy, run_gone
from service.control.lifecycle import Artifact
from service.control.runs import RunState
from service.db import jobs, locks, runs
from service.db.models import RunRow
from service.db.runs import Member
from service.db.transaction import Transaction


async def settle(tx: Transaction, run: RunRow, gone: Gone, artifacts: Mapping[str, Artifact], policy: RetryPolicy) -> None:
    """`artifacts` are those found committed in the store, by job uid, of jobs whose end was not reported."""
    run.state = RunState.GONE.value
    run.gone_time = tx.now
    if run.stop_reason:  # we had it stopped: that is why it is gone
        gone = Gone(reason=run.stop_reason, message=run.stop_message)
    for member in await runs.members(tx, run.id):
        artifact = artifacts.get(member.job.uid)
        if member.place.outcome is None:
            _explain(member, gone, artifact)
        jobs.save(tx, member.job, run_gone(jobs.value(member.job), member.ending, gone, artifact, tx.now, policy))
        tx.touch(member.job)
    locks.release(run)


def _explain(member: Member, gone: Gone, artifact: Artifact | None) -> None:
    if artifact is None:
        member.place.reason, member.place.message = gone.reason, gone.message
    else:
        member.place.reason, member.place.message = "SUCCEEDED", "its artifact is committed; the last report was lost"
