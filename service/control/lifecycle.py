"""The life of a job: its states, the moves between them, and what each event makes of a job. Values to values."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

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
    S.STOPPING: frozenset({S.CANCELLED, S.SUCCEEDED, S.FAILED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),  # only when a user asks for it: `retry`
    S.CANCELLED: frozenset(),
}
FINISHED = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
IN_A_RUN = frozenset({S.ADMITTED, S.STARTING, S.RUNNING, S.STOPPING})


class IllegalMove(Exception):
    """A bug: the table has no such move."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A committed artifact: its folder, and the SHA-256 of its manifest.json."""

    uri: str
    manifest_sha256: str


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
    """What decisions need to know of a job, and all that they may change."""

    state: JobState = S.QUEUED
    reason: str = ""
    message: str = ""
    attempt: int = 0  # runs so far
    failures: int = 0  # runs that ended by a failure worth another attempt
    cancel_requested: bool = False
    retry_at: datetime | None = None  # not admitted before
    first_step_time: datetime | None = None
    end_time: datetime | None = None
    artifact: Artifact | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED


def move(job: Job, to: JobState, *, reason: str = "", message: str = "") -> Job:
    """The job in another state; the old reason and message go. Raises IllegalMove."""
    if to not in MOVES[job.state]:
        raise IllegalMove(f"{job.state} -> {to}")
    return replace(job, state=to, reason=reason, message=message)


def finish(job: Job, to: JobState, at: datetime, *, reason: str = "", message: str = "", artifact: Artifact | None = None) -> Job:
    """The job at its end."""
    return replace(move(job, to, reason=reason, message=message), end_time=at, artifact=artifact, retry_at=None)


def wait(job: Job, reason: str, message: str) -> Job:
    """Still queued, and why."""
    return replace(job, reason=reason, message=message)


def refuse(job: Job, reason: str, message: str, at: datetime) -> Job:
    """No run could ever take it."""
    return finish(job, S.FAILED, at, reason=reason, message=message)


def admit(job: Job) -> Job:
    """A run of it is about to be launched."""
    return replace(move(job, S.ADMITTED, message=f"attempt {job.attempt + 1} is being launched"), attempt=job.attempt + 1, retry_at=None)


def launched(job: Job) -> Job:
    """Its run is known to the backend."""
    return move(job, S.STARTING, message="starting") if job.state is S.ADMITTED else job


def trained(job: Job, at: datetime) -> Job:
    """A training step was reported."""
    job = replace(job, first_step_time=job.first_step_time or at)
    job = launched(job)
    return move(job, S.RUNNING) if job.state is S.STARTING else job


def cancel(job: Job, at: datetime) -> Job:
    """A user asks it to end. Asking again is harmless; a job that ended otherwise raises FailedPrecondition."""
    match job.state:
        case S.QUEUED:
            return replace(finish(job, S.CANCELLED, at, reason="CANCELLED", message="cancelled before it started"), cancel_requested=True)
        case S.STOPPING | S.CANCELLED:
            return job
        case S.SUCCEEDED | S.FAILED:
            raise FailedPrecondition(f"the job has {job.state}: there is nothing to cancel", reason="JOB_FINISHED")
        case S.ADMITTED | S.STARTING | S.RUNNING:
            return replace(
                move(job, S.STOPPING, reason="CANCEL_REQUESTED", message="stopping after a checkpoint, on request"), cancel_requested=True
            )


def retry(job: Job) -> Job:
    """A user asks for a failed job again: its failures begin anew, its attempts go on. Any other job stays as it is.

    It may be queued while the pack that it failed in trains on; it is not admitted before that run is gone
    (`db.jobs.startable`), so that one output never has two writers.
    """
    if job.state is not S.FAILED:
        return job
    queued = move(job, S.QUEUED, reason="RETRYING", message="queued again on request")
    return replace(queued, failures=0, end_time=None, retry_at=None, cancel_requested=False)


def style_ended(job: Job, ending: Ending, at: datetime) -> Job:
    """What a run's own report of the end makes of a job.

    A failure worth another attempt, and a stop that nobody asked for, leave it as it is: the next attempt is decided
    once the run is observed gone (see `attempts.run_gone`).
    """
    if job.finished:
        return job
    job = launched(job)
    match ending.outcome:
        case Outcome.SUCCEEDED:
            return finish(job, S.SUCCEEDED, at, artifact=ending.artifact)
        case Outcome.FAILED if not ending.retryable:
            return finish(job, S.FAILED, at, reason=ending.reason or "FAILED", message=ending.message)
        case Outcome.STOPPED if job.cancel_requested:
            return finish(job, S.CANCELLED, at, reason="CANCELLED", message=ending.message or "cancelled on request")
        case _:
            return job
