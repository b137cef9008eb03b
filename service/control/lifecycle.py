"""Moves jobs through their life: the states, the moves between them, and what each event makes of a job. Values to values."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from lorafleet.contract import store_faults
from lorafleet.errors import FailedPrecondition


class JobState(StrEnum):
    """The states of the proto's JobState, without its prefix."""

    QUEUED = "QUEUED"
    ADMITTED = "ADMITTED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


S = JobState

MOVES: dict[JobState, frozenset[JobState]] = {
    S.QUEUED: frozenset({S.ADMITTED, S.CANCELLED, S.FAILED}),  # FAILED: no worker could take it
    S.ADMITTED: frozenset({S.STARTING, S.STOPPING, S.QUEUED, S.FAILED}),
    # A resumed run may have nothing left to train: it goes straight to its end.
    S.STARTING: frozenset({S.RUNNING, S.STOPPING, S.QUEUED, S.SUCCEEDED, S.FAILED}),
    S.RUNNING: frozenset({S.STOPPING, S.QUEUED, S.SUCCEEDED, S.FAILED}),
    # A cancel can come too late: what was finished stays finished.
    # QUEUED: it was stopped for a job that comes before it. FAILED: its time was up.
    S.STOPPING: frozenset({S.CANCELLED, S.SUCCEEDED, S.FAILED, S.QUEUED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),  # only when a user asks for it: `retry`
    S.CANCELLED: frozenset(),
}
FINISHED = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
IN_A_RUN = frozenset({S.ADMITTED, S.STARTING, S.RUNNING, S.STOPPING})
_GOING = frozenset({S.ADMITTED, S.STARTING, S.RUNNING})  # a job that stops has a reason that counts

PREEMPTED = "PREEMPTED"
ROW_ERROR = "ROW_ERROR"  # an error that nobody has foreseen keeps it, and it alone, from going on, or has ended it
_TROUBLES = frozenset({ROW_ERROR, *store_faults.OPERATORS})  # of a job whose run goes on: nobody looks after it for now
COMING_UP = "COMING_UP"  # nothing stands in the way of its run, it only takes its time
MAX_RUN_TIME_EXCEEDED = "MAX_RUN_TIME_EXCEEDED"


class IllegalMove(Exception):
    """A bug: the table has no such move."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A committed artifact: its folder, the SHA-256 of its manifest.json, and the size of its files as far as it is known."""

    uri: str
    manifest_sha256: str
    size_bytes: int | None = None


class Outcome(StrEnum):
    """How a style ended in a run."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a run reported about the end of one style."""

    outcome: Outcome
    reason: str = ""
    message: str = ""
    retryable: bool = False
    artifact: Artifact | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """All of a job that decisions need or may change."""

    state: JobState = S.QUEUED
    reason: str = ""
    message: str = ""
    attempt: int = 0  # runs so far
    failures: int = 0  # runs that ended by a failure worth another attempt
    cancel_requested: bool = False
    preempt_requested: bool = False  # stops for a job of a higher class, and is queued again
    max_run_time_s: float | None = None  # over all of its runs together
    run_time_s: float = 0.0  # in the runs before this one
    run_start_time: datetime | None = None  # of the run that it is in
    retry_at: datetime | None = None  # not admitted before
    first_step_time: datetime | None = None
    end_time: datetime | None = None
    artifact: Artifact | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def expired(self) -> bool:
        """It stops because its time is up."""
        return self.state is S.STOPPING and self.reason == MAX_RUN_TIME_EXCEEDED

    @property
    def deadline(self) -> datetime | None:
        """When its time in runs is up; None when it may take any time, or is in no run."""
        if self.max_run_time_s is None or self.run_start_time is None:
            return None
        return self.run_start_time + timedelta(seconds=self.max_run_time_s - self.run_time_s)


def move(job: Job, to: JobState, *, reason: str = "", message: str = "") -> Job:
    """The job in another state, without the old reason and message. Raises IllegalMove."""
    if to not in MOVES[job.state]:
        raise IllegalMove(f"{job.state} -> {to}")
    return replace(job, state=to, reason=reason, message=message)


def finish(job: Job, to: JobState, at: datetime, *, reason: str = "", message: str = "", artifact: Artifact | None = None) -> Job:
    """The job at its end."""
    ended = replace(left_run(job, at), preempt_requested=False)
    return replace(move(ended, to, reason=reason, message=message), end_time=at, artifact=artifact, retry_at=None)


def left_run(job: Job, at: datetime) -> Job:
    """The job out of its run, whose time is added to that of earlier runs."""
    if job.run_start_time is None:
        return job
    took_s = max(0.0, (at - job.run_start_time).total_seconds())
    return replace(job, run_time_s=job.run_time_s + took_s, run_start_time=None)


def requeue(job: Job, at: datetime, *, reason: str, message: str, retry_at: datetime) -> Job:
    """The job in the queue again, with its place by age."""
    queued = move(left_run(job, at), S.QUEUED, reason=reason, message=message)
    return replace(queued, retry_at=retry_at, preempt_requested=False)


def wait(job: Job, reason: str, message: str) -> Job:
    """Still queued, and why."""
    return replace(job, reason=reason, message=message)


def refuse(job: Job, reason: str, message: str, at: datetime) -> Job:
    """No run could ever take it."""
    return finish(job, S.FAILED, at, reason=reason, message=message)


def admit(job: Job) -> Job:
    """A run of it is about to be launched."""
    return replace(move(job, S.ADMITTED, message=f"attempt {job.attempt + 1} is being launched"), attempt=job.attempt + 1, retry_at=None)


def launched(job: Job, at: datetime) -> Job:
    """Its run is known to the backend: its time runs from now on."""
    return replace(move(job, S.STARTING, message="starting"), run_start_time=at) if job.state is S.ADMITTED else job


def trained(job: Job, at: datetime) -> Job:
    """A training step was reported."""
    job = replace(job, first_step_time=job.first_step_time or at)
    job = launched(job, at)
    return move(job, S.RUNNING) if job.state is S.STARTING else job


def cancel(job: Job, at: datetime) -> Job:
    """A user asks it to end. Asking again is harmless; a job that ended otherwise raises FailedPrecondition."""
    match job.state:
        case S.QUEUED:
            return replace(finish(job, S.CANCELLED, at, reason="CANCELLED", message="cancelled before it started"), cancel_requested=True)
        case S.CANCELLED:
            return job
        case S.STOPPING:  # a cancel outweighs whatever else it stops for
            message = "stopping after a checkpoint, on request"
            return job if job.cancel_requested else replace(job, reason="CANCEL_REQUESTED", message=message, cancel_requested=True)
        case S.SUCCEEDED | S.FAILED:
            raise FailedPrecondition(f"the job has {job.state}: there is nothing to cancel", reason="JOB_FINISHED")
        case S.ADMITTED | S.STARTING | S.RUNNING:
            return replace(
                move(job, S.STOPPING, reason="CANCEL_REQUESTED", message="stopping after a checkpoint, on request"), cancel_requested=True
            )


def preempt(job: Job, message: str) -> Job:
    """A job of a higher class needs its capacity: it stops after a checkpoint and is queued again. No effect in other states."""
    if job.state not in {S.ADMITTED, S.STARTING, S.RUNNING}:
        return job
    return replace(move(job, S.STOPPING, reason=PREEMPTED, message=message), preempt_requested=True)


def leave(job: Job, reason: str, message: str) -> Job:
    """Its machine is being taken away: it stops after a checkpoint and is queued again. No effect in other states."""
    why = f"stopping after a checkpoint: {message}; it will go on elsewhere"
    return replace(preempt(job, why), reason=reason) if job.state in {S.ADMITTED, S.STARTING, S.RUNNING} else job


def not_begun(job: Job, reason: str, message: str) -> Job:
    """Its run exists but is not training yet, and why. A repeated reason keeps its first message, since servers vary the wording."""
    is_old = job.reason == reason and reason not in {"", COMING_UP}
    return job if job.state is not S.STARTING or is_old else replace(job, reason=reason, message=message or "starting")


def troubled(job: Job, reason: str, message: str) -> Job:
    """Its run cannot be looked after, for an error of the service or a fault of its operators. It goes on, as far as is known."""
    return replace(job, reason=reason, message=message) if job.state in _GOING else job


def untroubled(job: Job) -> Job:
    """Its run is looked after again."""
    return replace(job, reason="", message="") if job.state in _GOING and job.reason in _TROUBLES else job


def expire(job: Job, now: datetime) -> Job:
    """Once its time is up, it stops after a checkpoint; only a cancel takes precedence."""
    deadline = job.deadline
    if deadline is None or now < deadline or job.state not in IN_A_RUN or job.cancel_requested or job.expired:
        return job
    message = f"stopping after a checkpoint: {_time_is_up(job)}"
    if job.state is S.STOPPING:
        return replace(job, reason=MAX_RUN_TIME_EXCEEDED, message=message, preempt_requested=False)
    return move(job, S.STOPPING, reason=MAX_RUN_TIME_EXCEEDED, message=message)


def end_expired(job: Job, at: datetime) -> Job:
    """The end of a job that stopped because its time was up. Its checkpoints stay."""
    message = f"{_time_is_up(job)}; its last checkpoint is kept in the job's folder"
    return finish(job, S.FAILED, at, reason=MAX_RUN_TIME_EXCEEDED, message=message)


def _time_is_up(job: Job) -> str:
    return f"it ran for the {job.max_run_time_s:.0f} s that scheduling.max_run_time_s allows"


def retry(job: Job) -> Job:
    """A user retries a failed job: its failures are reset, its attempts continue. Any other job is unchanged.

    It may be queued while the pack that it failed in trains on; it is not admitted before that run is gone
    (`db.jobs.startable`), so that one output never has two writers.
    """
    if job.state is not S.FAILED:
        return job
    queued = move(job, S.QUEUED, reason="RETRYING", message="queued again on request")
    return replace(queued, failures=0, end_time=None, retry_at=None, cancel_requested=False, run_time_s=0.0)


def style_ended(job: Job, ending: Ending, at: datetime) -> Job:
    """What a run's own report of the end makes of a job.

    A retryable failure, one that only the operators can mend, and a stop that was not requested, leave it as it is: the next
    attempt is decided once the run is observed gone (see `attempts.run_gone`).
    """
    if job.finished:
        return job
    job = launched(job, at)
    match ending.outcome:
        case Outcome.SUCCEEDED:
            return finish(job, S.SUCCEEDED, at, artifact=ending.artifact)
        case Outcome.FAILED if not ending.retryable and ending.reason not in store_faults.OPERATORS:
            return finish(job, S.FAILED, at, reason=ending.reason or "FAILED", message=ending.message)
        case Outcome.STOPPED if job.cancel_requested:
            return finish(job, S.CANCELLED, at, reason="CANCELLED", message=ending.message or "cancelled on request")
        case Outcome.STOPPED if job.expired:
            return end_expired(job, at)
        case _:
            return job
