"""Silence and hard stops."""

from datetime import UTC, datetime, timedelta

import pytest

from service.control.lifecycle import JobState
from service.control.runs import StopPolicy, cancel_stop_at, lost, stuck

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = StopPolicy()


@pytest.mark.parametrize(("state", "allowed_s"), [(JobState.STARTING, 900), (JobState.RUNNING, 60), (JobState.STOPPING, 60)])
def test_a_run_may_be_silent_for_so_long_and_no_longer(state, allowed_s):
    assert lost(NOW - timedelta(seconds=allowed_s - 1), NOW, [state], POLICY) is None
    stop = lost(NOW - timedelta(seconds=allowed_s), NOW, [state], POLICY)
    assert stop is not None
    assert stop.reason == "HEARTBEAT_LOST"


def test_a_run_that_has_not_trained_has_nothing_to_lose():
    assert cancel_stop_at([JobState.STARTING], NOW, POLICY) == NOW
    assert cancel_stop_at([JobState.RUNNING], NOW, POLICY) == NOW + timedelta(seconds=POLICY.grace_period_s)


def test_a_run_that_reports_and_never_trains_is_stuck():
    launched_at = NOW - timedelta(seconds=POLICY.start_deadline_s)
    stop = stuck(launched_at, NOW, [JobState.STARTING], POLICY)
    assert stop is not None
    assert stop.reason == "START_TIMEOUT"
    assert stuck(launched_at + timedelta(seconds=1), NOW, [JobState.STARTING], POLICY) is None
    assert stuck(launched_at, NOW, [JobState.STARTING, JobState.RUNNING], POLICY) is None, "a joiner may start late"
    assert stuck(launched_at, NOW, [], POLICY) is None
