"""Decides the outcome of a job once its run is observed gone: its artifact, another attempt, or the end."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lorafleet.backoff import doubled_s
from lorafleet.contract import store_faults
from service.control.lifecycle import PREEMPTED, Artifact, Ending, Job, JobState, Outcome, end_expired, finish, launched, requeue

# Ends that no job is to blame for: they cost none of its attempts.
HOST_GONE = "HOST_GONE"  # the warm workers that were to take the run ended before they began it
JOIN_MISSED = "JOIN_MISSED"  # the run that the job was to join ended before it took it in
TAKEN_AWAY = frozenset({"EVICTED", "NODE_LOST", "POD_DELETED", "SUSPENDED"})  # by the operators of the machines
INTERRUPTIONS = frozenset({"RAY_STOPPED", HOST_GONE, JOIN_MISSED, *TAKEN_AWAY})


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, and after how long, a job is tried again."""

    max_attempts: int = 3
    first_backoff_s: float = 5.0
    max_backoff_s: float = 300.0

    def backoff_s(self, failures: int) -> float:
        """Doubles with every failure: 5 s, 10 s, 20 s, ..."""
        return doubled_s(self.first_backoff_s, self.max_backoff_s, failures - 1)


@dataclass(frozen=True, kw_only=True)
class Gone:
    """The backend no longer executes the run, and why as far as it knows."""

    reason: str
    message: str = ""


def run_gone(job: Job, ending: Ending | None, gone: Gone, artifact: Artifact | None, at: datetime, policy: RetryPolicy) -> Job:
    """The job after its run: `ending` is what the run reported of it, `artifact` what lies committed in the store.

    An artifact without a report is a lost last report: the work is done, so the job has succeeded.
    """
    if job.finished or job.state is JobState.QUEUED:  # queued: it failed there, and a user has asked for another try
        return job
    if artifact is not None:
        return finish(launched(job, at), JobState.SUCCEEDED, at, artifact=artifact)
    if job.cancel_requested:
        return finish(job, JobState.CANCELLED, at, reason="CANCELLED", message="cancelled on request; the run is gone")
    if job.expired:
        return end_expired(job, at)
    has_failed = ending is not None and ending.outcome is Outcome.FAILED
    if job.preempt_requested and not has_failed:
        why = "a job of a higher class took its place" if job.reason == PREEMPTED else "the place where it ran was taken away"
        return requeue(job, at, reason=job.reason, message=f"{why}; it goes on from its checkpoint", retry_at=at)
    if gone.reason in INTERRUPTIONS or (ending is not None and ending.outcome is Outcome.STOPPED):
        message = f"attempt {job.attempt} was interrupted: {gone.message or gone.reason}"
        return requeue(job, at, reason="RETRYING", message=message, retry_at=at)
    reason, message = _cause(ending, gone)
    if reason in store_faults.OPERATORS:
        return wait_for_operators(job, reason, message, at, policy)
    return _failed_attempt(job, reason, message, at, policy)


def wait_for_operators(job: Job, reason: str, message: str, at: datetime, policy: RetryPolicy) -> Job:
    """Queued again at no cost: what stopped it is no job's fault, and ends none. Ever more rarely, as attempts go by in vain."""
    wait_s = policy.backoff_s(max(1, job.attempt - job.failures))
    why = f"waits for the operators of the service: {message or reason}; tried again in {wait_s:.0f} s"
    return requeue(job, at, reason=reason, message=why, retry_at=at + timedelta(seconds=wait_s))


def _cause(ending: Ending | None, gone: Gone) -> tuple[str, str]:
    if ending is not None and ending.outcome is Outcome.FAILED:
        return ending.reason or "FAILED", ending.message
    return gone.reason, gone.message


def _failed_attempt(job: Job, reason: str, message: str, at: datetime, policy: RetryPolicy) -> Job:
    failures = job.failures + 1
    job = replace(job, failures=failures)
    if failures >= policy.max_attempts:
        tried = f"; tried {failures} times" if failures > 1 else ""
        return finish(job, JobState.FAILED, at, reason=reason, message=f"{message}{tried}")
    wait_s = policy.backoff_s(failures)
    why = f"attempt {job.attempt} failed ({reason}: {message}); the next starts in {wait_s:.0f} s"
    return requeue(job, at, reason="RETRYING", message=why, retry_at=at + timedelta(seconds=wait_s))
