"""The state machine keeps its table, whatever happens in whatever order."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.errors import FailedPrecondition
from service.control import lifecycle
from service.control.attempts import Gone, RetryPolicy, run_gone
from service.control.lifecycle import FINISHED, IN_A_RUN, MOVES, Artifact, Ending, IllegalMove, Job, JobState, Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARTIFACT = Artifact(uri="s3://b/adapter", manifest_sha256="ab" * 32)
POLICY = RetryPolicy()

endings = st.builds(
    Ending,
    outcome=st.sampled_from(Outcome),
    reason=st.sampled_from(["", "NAN_LOSS"]),
    retryable=st.booleans(),
    artifact=st.just(ARTIFACT),
)
gones = st.builds(Gone, reason=st.sampled_from(["RUN_LOST", "RAY_HEAD_GONE", "RAY_STOPPED"]))


def _happens(job: Job, event: str, ending: Ending | None, gone: Gone, artifact: Artifact | None) -> Job:
    """One event, where the loops and the API would let it happen."""
    match event:
        case "admit" if job.state is JobState.QUEUED:
            return lifecycle.admit(job)
        case "launched":
            return lifecycle.launched(job, NOW)
        case "trained" if job.state in IN_A_RUN:
            return lifecycle.trained(job, NOW)
        case "ended" if job.state in IN_A_RUN and ending is not None:
            return lifecycle.style_ended(job, ending, NOW)
        case "gone" if job.state in IN_A_RUN:
            return run_gone(job, ending, gone, artifact, NOW, POLICY)
        case "cancel" if job.state not in {JobState.SUCCEEDED, JobState.FAILED}:
            return lifecycle.cancel(job, NOW)
        case "preempt":
            return lifecycle.preempt(job, "told")
        case "expire":
            return lifecycle.expire(job, NOW + timedelta(seconds=100))
        case "retry":
            return lifecycle.retry(job)
    return job


steps = st.tuples(
    st.sampled_from(["admit", "launched", "trained", "ended", "gone", "cancel", "preempt", "expire", "retry"]),
    st.none() | endings,
    gones,
    st.none() | st.just(ARTIFACT),
)


@given(st.lists(steps, max_size=40), st.none() | st.just(60.0))
def test_any_history_keeps_the_table(history, max_run_time_s):
    job = Job(max_run_time_s=max_run_time_s)
    for event, ending, gone, artifact in history:
        after = _happens(job, event, ending, gone, artifact)
        if job.state in FINISHED and (event, job.state) != ("retry", JobState.FAILED):
            assert after == job, "a finished job never changes, unless it failed and a user asks for it again"
        assert after.attempt - job.attempt == (1 if event == "admit" and job.state is JobState.QUEUED else 0)
        assert (after.end_time is not None) == (after.state in FINISHED)
        assert (after.artifact is not None) == (after.state is JobState.SUCCEEDED)
        assert after.failures <= POLICY.max_attempts
        if after.state is JobState.STOPPING:
            assert after.cancel_requested or after.preempt_requested or after.expired, "nothing stops for no reason"
        assert not (after.preempt_requested and after.state is not JobState.STOPPING)
        assert after.failures == job.failures or event in {"gone", "retry"}
        assert not (event == "preempt" and job.state in FINISHED | {JobState.QUEUED} and after != job)
        assert not (after.cancel_requested and after.state is JobState.QUEUED), "a cancelled job is never tried again"
        job = after


def test_a_move_that_the_table_has_not_is_a_bug():
    for state, moves in MOVES.items():
        for to in set(JobState) - moves:
            with pytest.raises(IllegalMove):
                lifecycle.move(Job(state=state), to)


def test_every_state_can_end():
    for state in set(JobState) - FINISHED:
        reachable, frontier = set(), {state}
        while frontier:
            reachable |= frontier
            frontier = {to for one in frontier for to in MOVES[one]} - reachable
        assert reachable & FINISHED, state


def test_the_first_training_step_makes_it_run_and_is_remembered():
    job = lifecycle.trained(lifecycle.launched(lifecycle.admit(Job()), NOW), NOW)
    assert (job.state, job.first_step_time) == (JobState.RUNNING, NOW)
    assert lifecycle.trained(job, NOW + timedelta(seconds=9)).first_step_time == NOW


def test_cancel_of_a_queued_job_is_its_end():
    job = lifecycle.cancel(Job(), NOW)
    assert (job.state, job.end_time) == (JobState.CANCELLED, NOW)


def test_cancel_again_is_harmless():
    job = lifecycle.cancel(lifecycle.admit(Job()), NOW)
    assert job.state is JobState.STOPPING
    assert lifecycle.cancel(job, NOW) == job
    ended = lifecycle.cancel(Job(), NOW)
    assert lifecycle.cancel(ended, NOW + timedelta(seconds=1)) == ended


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_cancel_of_a_finished_job_is_refused(state):
    with pytest.raises(FailedPrecondition) as refused:
        lifecycle.cancel(Job(state=state), NOW)
    assert refused.value.reason == "JOB_FINISHED"


def test_what_was_finished_before_the_cancel_arrived_stays_finished():
    stopping = lifecycle.cancel(Job(state=JobState.RUNNING), NOW)
    job = lifecycle.style_ended(stopping, Ending(outcome=Outcome.SUCCEEDED, artifact=ARTIFACT), NOW)
    assert (job.state, job.artifact) == (JobState.SUCCEEDED, ARTIFACT)


def test_a_stop_that_nobody_asked_for_does_not_end_the_job():
    running = Job(state=JobState.RUNNING, attempt=1)
    assert lifecycle.style_ended(running, Ending(outcome=Outcome.STOPPED), NOW) == running


def test_a_retried_job_has_all_its_tries_again_and_counts_its_attempts_on():
    failed = Job(state=JobState.FAILED, reason="NAN_LOSS", message="told", attempt=3, failures=3, cancel_requested=True, end_time=NOW)
    assert lifecycle.retry(failed) == Job(reason="RETRYING", message="queued again on request", attempt=3)


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.FAILED])
def test_a_retry_of_what_has_not_failed_changes_nothing(state):
    job = Job(state=state, attempt=1)
    assert lifecycle.retry(job) == job


def test_the_end_of_the_run_that_it_failed_in_does_not_touch_a_job_queued_again():
    again = lifecycle.retry(Job(state=JobState.FAILED, attempt=1))
    assert run_gone(again, Ending(outcome=Outcome.FAILED), Gone(reason="RUN_LOST"), None, NOW, POLICY) == again


def running(**changes) -> Job:
    return Job(state=JobState.RUNNING, attempt=2, failures=1, run_start_time=NOW, **changes)


STOPPED = Ending(outcome=Outcome.STOPPED)
WENT = Gone(reason="ENDED")


def test_a_preempted_job_is_queued_again_and_no_failure_is_counted():
    stopping = lifecycle.preempt(running(), "a job of the class high needs its place")
    assert (stopping.state, stopping.reason) == (JobState.STOPPING, "PREEMPTED")
    assert lifecycle.style_ended(stopping, STOPPED, NOW) == stopping, "queued only once its run is gone: never two live attempts"
    again = run_gone(stopping, STOPPED, WENT, None, NOW, POLICY)
    assert (again.state, again.reason, again.failures, again.preempt_requested) == (JobState.QUEUED, "PREEMPTED", 1, False)
    assert again.retry_at == NOW, "it waits for a place, not for a back-off"


@pytest.mark.parametrize("gone", [Gone(reason="PREEMPTED"), Gone(reason="HEARTBEAT_LOST"), Gone(reason="RUN_LOST")])
def test_a_preempted_job_that_did_not_obey_is_queued_again_all_the_same(gone):
    again = run_gone(lifecycle.preempt(running(), ""), None, gone, None, NOW, POLICY)
    assert (again.state, again.reason, again.failures) == (JobState.QUEUED, "PREEMPTED", 1)


def test_what_ended_before_the_preemption_arrived_stays_ended():
    stopping = lifecycle.preempt(running(), "")
    assert lifecycle.style_ended(stopping, Ending(outcome=Outcome.SUCCEEDED, artifact=ARTIFACT), NOW).state is JobState.SUCCEEDED
    broken = Ending(outcome=Outcome.FAILED, reason="STORE_UNREACHABLE", retryable=True)
    assert run_gone(stopping, broken, WENT, None, NOW, POLICY).failures == 2, "a failure is a failure"


def test_a_cancel_during_preemption_wins():
    job = lifecycle.cancel(lifecycle.preempt(running(), ""), NOW)
    assert (job.state, job.reason, job.cancel_requested) == (JobState.STOPPING, "CANCEL_REQUESTED", True)
    assert lifecycle.style_ended(job, STOPPED, NOW).state is JobState.CANCELLED
    assert run_gone(job, None, Gone(reason="PREEMPTED"), None, NOW, POLICY).state is JobState.CANCELLED


def test_nothing_is_preempted_twice_or_when_it_stops_or_waits():
    for state in (JobState.QUEUED, JobState.STOPPING, *FINISHED):
        job = Job(state=state)
        assert lifecycle.preempt(job, "told") == job


def test_the_time_of_all_runs_counts_and_its_end_is_a_stop_then_a_failure():
    job = Job(state=JobState.ADMITTED, attempt=1, max_run_time_s=100)
    job = lifecycle.launched(job, NOW)
    later = NOW + timedelta(seconds=70)
    job = run_gone(lifecycle.preempt(job, ""), None, WENT, None, later, POLICY)
    assert (job.run_time_s, job.deadline) == (70, None)
    job = lifecycle.launched(lifecycle.admit(job), later)
    assert lifecycle.expire(job, later + timedelta(seconds=29)) == job
    stopping = lifecycle.expire(job, later + timedelta(seconds=30))
    assert (stopping.state, stopping.reason) == (JobState.STOPPING, "MAX_RUN_TIME_EXCEEDED")
    for ended in (
        lifecycle.style_ended(stopping, STOPPED, later + timedelta(seconds=31)),
        run_gone(stopping, None, Gone(reason="RUN_LOST"), None, later + timedelta(seconds=31), POLICY),
    ):
        assert (ended.state, ended.reason) == (JobState.FAILED, "MAX_RUN_TIME_EXCEEDED")
        assert "100 s" in ended.message


def test_time_that_is_up_outweighs_preemption_and_a_cancel_outweighs_both():
    late = NOW + timedelta(seconds=100)
    preempted = lifecycle.preempt(running(max_run_time_s=60.0), "")
    expired = lifecycle.expire(preempted, late)
    assert (expired.expired, expired.preempt_requested) == (True, False)
    cancelled = lifecycle.cancel(expired, late)
    assert lifecycle.expire(cancelled, late) == cancelled
    assert lifecycle.style_ended(cancelled, STOPPED, late).state is JobState.CANCELLED


def test_a_finished_job_never_moves():
    for state in FINISHED:
        job = Job(state=state, attempt=1, max_run_time_s=1.0, run_start_time=NOW)
        late = NOW + timedelta(days=1)
        for after in (
            lifecycle.launched(job, late),
            lifecycle.preempt(job, ""),
            lifecycle.expire(job, late),
            lifecycle.style_ended(job, STOPPED, late),
            run_gone(job, None, WENT, ARTIFACT, late, POLICY),
        ):
            assert after == job


def test_the_diagram_of_the_documents_shows_every_move_once() -> None:
    text = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()
    drawn = re.findall(r"^  ([A-Z]+) --> ([A-Z]+)", text, flags=re.M)
    assert sorted(drawn) == sorted((state.value, to.value) for state, moves in MOVES.items() for to in moves)
