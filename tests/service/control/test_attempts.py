"""After a run: the artifact, another attempt, or the end."""

from datetime import UTC, datetime, timedelta

import pytest

from service.control.attempts import Gone, RetryPolicy, run_gone
from service.control.lifecycle import Artifact, Ending, Job, JobState, Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy()
LOST = Gone(reason="RUN_LOST", message="the driver exited with code 137")
RUNNING = Job(state=JobState.RUNNING, attempt=1)


def after(job: Job = RUNNING, ending: Ending | None = None, gone: Gone = LOST, artifact: Artifact | None = None) -> Job:
    return run_gone(job, ending, gone, artifact, NOW, POLICY)


def test_a_lost_run_is_tried_again_after_a_while():
    job = after()
    assert (job.state, job.reason, job.failures) == (JobState.QUEUED, "RETRYING", 1)
    assert job.retry_at == NOW + timedelta(seconds=POLICY.first_backoff_s)
    assert "code 137" in job.message


def test_the_last_attempt_fails_with_the_cause():
    job = after(Job(state=JobState.RUNNING, attempt=3, failures=2))
    assert (job.state, job.reason) == (JobState.FAILED, "RUN_LOST")
    assert "code 137" in job.message
    assert "3 times" in job.message


def test_what_the_run_reported_explains_more_than_its_absence():
    ending = Ending(outcome=Outcome.FAILED, reason="STORE_UNREACHABLE", message="s3 was away", retryable=True)
    job = after(Job(state=JobState.RUNNING, attempt=3, failures=2), ending)
    assert (job.reason, job.message) == ("STORE_UNREACHABLE", "s3 was away; tried 3 times")


def test_a_committed_artifact_outweighs_a_lost_report():
    artifact = Artifact(uri="s3://b/adapter", manifest_sha256="ab" * 32)
    for state in (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING):
        assert after(Job(state=state, attempt=1), artifact=artifact).state is JobState.SUCCEEDED


def test_a_cancelled_job_ends_with_its_run():
    job = after(Job(state=JobState.STOPPING, attempt=1, cancel_requested=True))
    assert (job.state, job.end_time) == (JobState.CANCELLED, NOW)


@pytest.mark.parametrize(
    ("ending", "gone"), [(Ending(outcome=Outcome.STOPPED), LOST), (None, Gone(reason="RAY_STOPPED", message="serve was stopped"))]
)
def test_an_interruption_costs_no_attempt(ending, gone):
    job = after(Job(state=JobState.RUNNING, attempt=7, failures=2), ending, gone)
    assert (job.state, job.failures, job.retry_at) == (JobState.QUEUED, 2, NOW)


def test_the_wait_doubles_up_to_a_limit():
    assert [POLICY.backoff_s(failures) for failures in (1, 2, 3)] == [5, 10, 20]
    assert POLICY.backoff_s(20) == POLICY.max_backoff_s


def test_what_the_operators_must_mend_costs_nothing_and_is_tried_ever_more_rarely():
    waits: list[float] = []
    for attempt in range(1, 9):
        job = after(Job(state=JobState.STARTING, attempt=attempt), gone=Gone(reason="DISK_FULL"))
        assert (job.state, job.reason, job.failures) == (JobState.QUEUED, "DISK_FULL", 0)
        assert job.retry_at is not None
        waits.append((job.retry_at - NOW).total_seconds())
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
