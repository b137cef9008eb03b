"""Records that a run is over, and the consequences for its jobs."""

from collections.abc import Mapping

from service.control import lifecycle
from service.control.attempts import JOIN_MISSED, Gone, RetryPolicy, run_gone
from service.control.lifecycle import IN_A_RUN, Artifact, Outcome
from service.control.runs import WITH_JOBS, RunState
from service.db import jobs, locks, runs
from service.db.models import RunRow
from service.db.runs import Member
from service.db.transaction import Transaction

MISSED = Gone(reason=JOIN_MISSED, message="the run ended before it could take the job in")


async def settle(tx: Transaction, run: RunRow, gone: Gone, artifacts: Mapping[str, Artifact], policy: RetryPolicy) -> None:
    """The run is gone. `artifacts` are those found committed in the store, by job uid, of jobs whose end was not reported."""
    if run.stop_reason:  # we stopped it: that is why it is gone
        gone = Gone(reason=run.stop_reason, message=run.stop_message)
    if run.state in WITH_JOBS:
        await settle_jobs(tx, run, gone, artifacts, policy)
        run.gone_time = tx.now
    run.state = RunState.GONE.value
    locks.release(run)
    tx.changed = True


async def settle_jobs(tx: Transaction, run: RunRow, gone: Gone, artifacts: Mapping[str, Artifact], policy: RetryPolicy) -> None:
    """Applies the end of the run to those of its jobs that are not in another run by now."""
    for member in await runs.lock_members(tx, run.id):
        job = jobs.value(member.job)
        if job.attempt != member.place.attempt:
            continue
        artifact = artifacts.get(member.job.uid)
        why = MISSED if member.place.joining else gone
        if member.place.outcome is None:
            _explain(member, why, artifact)
        elif job.preempt_requested and member.place.outcome == Outcome.STOPPED.value:
            message = "a job of a higher class took its place" if job.reason == lifecycle.PREEMPTED else job.message
            member.place.reason, member.place.message = job.reason, message
        if job.state in IN_A_RUN:
            jobs.save(tx, member.job, run_gone(job, member.ending, why, artifact, tx.now, policy))
        tx.touch(member.job)


def _explain(member: Member, gone: Gone, artifact: Artifact | None) -> None:
    if artifact is None:
        member.place.reason, member.place.message = gone.reason, gone.message
    else:
        member.place.reason, member.place.message = "SUCCEEDED", "its artifact is committed; the last report was lost"
