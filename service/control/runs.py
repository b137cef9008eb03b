"""Decides when a run must be stopped hard, and the directive before that. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from service.control.lifecycle import JobState


class RunState(StrEnum):
    """A run is PENDING until a backend is known to have it, and GONE once its absence was observed.

    On warm workers: OFFERED until they have learnt of it; IDLE once all its jobs have ended and they wait for another
    run; GONE once they have begun that.
    """

    PENDING = "PENDING"
    OFFERED = "OFFERED"
    LAUNCHED = "LAUNCHED"
    IDLE = "IDLE"
    GONE = "GONE"


WITH_JOBS = frozenset({RunState.PENDING, RunState.OFFERED, RunState.LAUNCHED})  # its jobs are in it and in no other run
COMING = frozenset({RunState.PENDING, RunState.OFFERED})  # not begun yet, as far as is known


@dataclass(frozen=True, kw_only=True)
class StopPolicy:
    """How long runs may be silent, and how long they may take to end."""

    grace_period_s: float = 120.0  # from a cancel to the hard stop
    heartbeat_timeout_s: float = 60.0  # silence allowed once a job of the run trains
    start_timeout_s: float = 900.0  # silence allowed before
    start_deadline_s: float = 7200.0  # from the launch to the first training step, however much is reported meanwhile
    linger_s: float = 30.0  # from the end of the last job to the hard stop
    stop_again_s: float = 30.0  # between two hard stops of a run that does not go
    unreachable_s: float = 120.0  # a backend silent for so long, with a run silent too, has lost the run
    warm_idle_s: float = 60.0  # how long workers wait for another run; 0: they end with their last job


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A hard stop that is due, and why."""

    reason: str
    message: str


def cancel_stop_at(states: Collection[JobState], at: datetime, policy: StopPolicy) -> datetime:
    """When the run of cancelled jobs is stopped hard. `states` are those of the jobs before the cancel.

    A run that has not trained a step has nothing to lose and goes at once.
    """
    training = any(state in {JobState.RUNNING, JobState.STOPPING} for state in states)
    return at + timedelta(seconds=policy.grace_period_s if training else 0)


def silence_allowed_s(states: Collection[JobState], policy: StopPolicy) -> float:
    """How long a run with jobs in these states may go without a report."""
    training = any(state in {JobState.RUNNING, JobState.STOPPING} for state in states)
    return policy.heartbeat_timeout_s if training else policy.start_timeout_s


def stuck(launched_at: datetime, now: datetime, states: Collection[JobState], policy: StopPolicy) -> Stop | None:
    """A stop for a run that keeps reporting but never trains: it would hold its capacity for ever."""
    has_trained = not all(state in {JobState.ADMITTED, JobState.STARTING} for state in states)
    if not states or has_trained or now - launched_at < timedelta(seconds=policy.start_deadline_s):
        return None
    return Stop(reason="START_TIMEOUT", message=f"the run did not train a step within {policy.start_deadline_s:.0f} s")


def lost(heard_at: datetime, now: datetime, states: Collection[JobState], policy: StopPolicy) -> Stop | None:
    """A stop for a run that has been silent for too long."""
    allowed_s = silence_allowed_s(states, policy)
    if now - heard_at < timedelta(seconds=allowed_s):
        return None
    return Stop(reason="HEARTBEAT_LOST", message=f"the run did not report for {allowed_s:.0f} s")
