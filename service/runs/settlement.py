"""Records that a run is over, and the consequences for its jobs."""

from collections.abc import Mapping
from functools import partial

from lorafleet.contract import store_faults
from lorafleet.errors import LorafleetError, OperatorsFault
from service.control import lifecycle
from service.control.attempts import HOST_GONE, JOIN_MISSED, Gone, RetryPolicy, run_gone
from service.control.lifecycle import IN_A_RUN, Artifact, Job, JobState, Outcome
from service.control.runs import WITH_JOBS, RunState
from service.core import telemetry
from service.db import hosts, jobs, locks, row_faults, runs
from service.db.after_commit import after_commit
from service.db.models import JobRow, RunRow
from service.db.runs import PackMember
from service.db.transaction import Transaction
from service.db.types import storable

MISSED = Gone(reason=JOIN_MISSED, message="the run ended before it could take the job in")


async def settle_host(tx: Transaction, run: RunRow, gone: Gone, artifacts: Mapping[str, Artifact], policy: RetryPolicy) -> None:
    """The run is gone with its process. A run that was to go on there, and was not heard of, is not to blame. Lock the host first."""
    coming = await hosts.coming(tx, run)
    await settle(tx, run, gone, artifacts, policy)
    if coming is not None:
        message = f"the warm workers of {run.host_id} ended before they began it ({gone.reason})"
        await settle(tx, coming, Gone(reason=HOST_GONE, message=message), artifacts, policy)


async def settle(tx: Transaction, run: RunRow, gone: Gone, artifacts: Mapping[str, Artifact], policy: RetryPolicy) -> None:
    """The run is gone. `artifacts` are those found committed in the store, by job uid, of jobs whose end was not reported."""
    gone = Gone(reason=gone.reason, message=storable(gone.message))
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
        with row_faults.own("settle", member.job.name) as trouble:
            _settle_one(tx, member, gone, artifacts.get(member.job.uid), policy)
        if trouble:  # the run's end must be recorded: it holds a place
            _give_up(tx, member.job, trouble.message)


def _settle_one(tx: Transaction, member: PackMember, gone: Gone, artifact: Artifact | None, policy: RetryPolicy) -> None:
    job = jobs.value(member.job)
    if job.attempt != member.place.attempt:
        return
    why = MISSED if member.place.joining else gone
    if member.place.outcome is None:
        _explain(member, why, artifact)
    elif job.preempt_requested and member.place.outcome == Outcome.STOPPED.value:
        message = "a job of a higher class took its place" if job.reason == lifecycle.PREEMPTED else job.message
        member.place.reason, member.place.message = job.reason, message
    if job.state in IN_A_RUN:
        _save(tx, member, run_gone(job, member.ending, why, artifact, tx.now, policy))
    tx.touch(member.job)


def _give_up(tx: Transaction, row: JobRow, message: str) -> None:
    """The job's end where no decision can be made on what is in its row: past all of that."""
    if row.state in {state.value for state in IN_A_RUN}:
        row.state, row.end_time, row.retry_at = JobState.FAILED.value, tx.now, None
        row.reason, row.message = lifecycle.ROW_ERROR, f"what became of it could not be told: {message}"
        tx.touch(row)


def leave_run(tx: Transaction, member: PackMember, error: LorafleetError, policy: RetryPolicy) -> None:
    """One member of a run that others begin: it ends for good, or waits for the operators. Whatever the run should say of it, as one that
    was launched before this and is not known to be, does not count any more; and no other run takes it while this one is there."""
    place, job = member.place, jobs.value(member.job)
    place.outcome, place.reason, place.message = Outcome.FAILED.value, error.reason, error.message
    place.retryable = error.retryable
    if isinstance(error, OperatorsFault):
        _save(tx, member, run_gone(job, None, Gone(reason=error.reason, message=error.message), None, tx.now, policy))
    else:
        _save(tx, member, lifecycle.finish(job, JobState.FAILED, tx.now, reason=error.reason, message=error.message))
    tx.touch(member.job)


def _save(tx: Transaction, member: PackMember, job: Job) -> None:
    jobs.save(tx, member.job, job)
    if job.reason in store_faults.OPERATORS:
        after_commit(tx, partial(telemetry.count, telemetry.OPERATORS_FAULTS, where="run", reason=job.reason))


def _explain(member: PackMember, gone: Gone, artifact: Artifact | None) -> None:
    if artifact is None:
        member.place.reason, member.place.message = gone.reason, gone.message
    else:
        member.place.reason, member.place.message = "SUCCEEDED", "its artifact is committed; the last report was lost"
